"""The example for Streamlit, run by Streamlit itself."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from carto_auth.sandbox.walker import walk_login

# What Streamlit calls by old names is not ours to repair.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "streamlit_app.py"


@pytest.fixture
def app(carto):
    return AppTest.from_file(str(EXAMPLE), default_timeout=30).run()


def submit(app, code):
    app.text_input[0].set_value(code)
    app.button[0].click().run()
    assert not app.exception


def link(app):
    (button,) = app.get("link_button")
    return button.proto.url


def test_a_login(app, carto):
    assert not app.exception
    submit(app, walk_login(link(app)))
    assert app.success[0].value == f"You are logged in. The API is at {carto.url}"
    app.button[0].click().run()
    assert "auth" not in app.session_state
    assert not app.success


def test_a_wrong_code_says_why_and_begins_again(app):
    first = link(app)
    submit(app, "wrong")
    assert "did not accept the access code" in app.error[0].value
    assert link(app) != first
    submit(app, walk_login(link(app)))
    assert app.success


def test_a_first_time_user_keeps_the_login(app, carto):
    carto.has_tenant = False
    code = walk_login(link(app))
    submit(app, code)
    assert "once" in app.error[0].value
    carto.has_tenant = True
    submit(app, "")
    assert app.success
    assert carto.count("/oauth/token") == 1


def test_two_people(app, carto):
    other = AppTest.from_file(str(EXAMPLE), default_timeout=30).run()
    assert link(other) != link(app)
    submit(other, walk_login(link(other)))
    assert other.success
    assert not app.run().success
