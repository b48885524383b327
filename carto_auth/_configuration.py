"""A tenant's configuration: the API address in its YAML, which is read within bounds.

YAML is larger than what a configuration needs of it. Aliases make a huge thing of a small text, nesting exhausts the
stack of the parser, and whoever answers in the place of a tenant's host may send either.
"""

from __future__ import annotations

from contextlib import suppress

import yaml

from carto_auth.errors import InvalidAnswer

#: Characters, levels and items. CARTO's configurations have a few hundred items; the parser takes about a second
#: for the most that these bounds let through.
_LONGEST = 128 * 1024
_DEEPEST = 50
_MOST_EVENTS = 20_000


def api_base_url_in(configuration: str) -> object:
    """What a tenant's ``config.yaml`` holds as ``apis.baseUrl``: not checked, and not empty.

    Raises:
        InvalidAnswer: it holds nothing there, or it is not a configuration.
    """
    content: object = None
    # Not only YAMLError: the parser fails at odd values (a date in month 13, an empty !!int) in many ways.
    with suppress(Exception):
        content = yaml.safe_load(configuration) if _is_bounded(configuration) else None
    if isinstance(content, dict) and isinstance(content.get("apis"), dict) and content["apis"].get("baseUrl"):
        return content["apis"]["baseUrl"]
    problem = "names no API address" if isinstance(content, dict) else "is not the YAML that was expected"
    raise InvalidAnswer(
        f"The configuration of the CARTO organization {problem}.",
        remedy="Pass api_base_url= yourself. You will find it on the Developers page of your CARTO Workspace.",
        status=200,
    )


def _is_bounded(text: str) -> bool:
    if len(text) > _LONGEST:
        return False
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if number > _MOST_EVENTS or depth > _DEEPEST or isinstance(event, yaml.AliasEvent):
            return False
    return True
