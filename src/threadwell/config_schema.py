"""The JSON Schema of `threadwell.toml`, with which editors complete and check it."""

from __future__ import annotations

import json
from typing import Any

from .adapters.detect import INTERFACES
from .config_file import OWN_FILE
from .worker import OPTIONS, Option

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Options of the command that are not in the option table.
_COMMAND_OPTIONS: dict[str, Any] = {
    "app": {"type": "string", "description": "The application, such as module:app."},
    "interface": {
        "enum": [*INTERFACES],
        "description": "The interface of the application, if it cannot be detected.",
    },
    "asgi_app": {"type": "string", "description": "An ASGI application beside app."},
    "app_dir": {"type": "string", "description": "The folder to import modules from first."},
    "factory": {"type": "boolean", "description": "app returns the application."},
}
_SIZE = {"type": "string", "pattern": "^[0-9]+ ?[kmgKMG]?(i?[bB])?$"}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema() -> str:
    """The schema as text. A name may be written with dashes or underscores."""
    properties: dict[str, Any] = {}
    for name, value in (*_COMMAND_OPTIONS.items(), *map(_of_option, _written())):
        for spelling in dict.fromkeys((name, name.replace("_", "-"))):
            properties[spelling] = value
    table = {
        "$schema": _DIALECT,
        "title": OWN_FILE,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return json.dumps(table, indent=2)


def _written() -> list[Option]:
    """The options that a file may have: secrets do not belong there."""
    return [option for option in OPTIONS if not option.secret]


def _of_option(option: Option) -> tuple[str, dict[str, Any]]:
    facts: dict[str, Any] = {"description": option.help, "default": option.default}
    if option.multiple:
        item = {"type": ["string", "integer"]}
        return option.name, facts | {"anyOf": [item, {"type": "array", "items": item}]}
    if option.choices:
        return option.name, facts | {"enum": [*dict.fromkeys((*option.choices, option.default))]}
    kind: dict[str, Any] = {"type": _TYPES[option.type]}
    if option.low is not None:
        kind["minimum"] = option.low
    if option.high is not None:
        kind["maximum"] = option.high
    others = [_SIZE] * (option.unit == "bytes") + [{"const": option.word}] * bool(option.word)
    return option.name, facts | ({"anyOf": [kind, *others]} if others else kind)
