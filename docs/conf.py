"""How Sphinx builds the site. Run: make docs"""

from carto_auth import __version__

project = "carto-auth"
author = "the carto-auth contributors"
release = version = __version__
html_title = f"carto-auth {__version__}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = False  # annotations name types that only type checkers import

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False
napoleon_use_ivar = True

# What is copied is what is typed: no prompts, no output.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

highlight_language = "text"  # what has no language is output

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def setup(app):
    """The errors take the arguments of their root, which need not be repeated."""

    def signature(app, what, name, obj, options, arguments, returns):
        return ("", None) if what == "exception" and not name.endswith(".CredentialsError") else None

    app.connect("autodoc-process-signature", signature)
