"""The JSON Schema of threadwell.toml."""

from __future__ import annotations

import json
from typing import Any

import pytest

from threadwell import cli

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator() -> Any:
    from threadwell.config_schema import schema

    table = json.loads(schema())
    jsonschema.Draft202012Validator.check_schema(table)
    return jsonschema.Draft202012Validator(table)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "threadwell.toml"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"app": "shop.wsgi", "interface": "wsgi", "app-dir": "src", "factory": True},
        {"bind": "127.0.0.1:8000", "threads": 4, "workers": "auto", "limit-body": "10M"},
        {"bind": ["127.0.0.1:8000", 9000], "limit_body": 5, "log_level": "debug", "http2": True},
        {"keep_alive": 5, "write-timeout": 2.5, "cert": "adhoc"},
    ],
)
def test_what_is_right(validator: Any, settings: dict[str, Any]) -> None:
    validator.validate(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"thrads": 4},
        {"threads": "many"},
        {"threads": -1},
        {"workers": "several"},
        {"limit_body": "much"},
        {"log_level": "loud"},
        {"http2": "yes"},
        {"bind": 1.5},
        {"keyfile_password": "secret"},
        {"tool": {}},
    ],
)
def test_what_is_wrong(validator: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(settings)
