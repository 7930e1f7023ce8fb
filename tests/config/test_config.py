"""The option table, and the configuration that is made from it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from threadwell import ConfigError, ServerConfig
from threadwell.worker import (
    OPTIONS,
    Limits,
    Option,
    Request,
    Response,
    Server,
    SyncWorker,
    Timeouts,
)
from threadwell.worker.config.groups import parse_size
from threadwell.worker.net.bind import BindAddress, parse_bind

NUMBERS = [option for option in OPTIONS if option.type in (int, float)]
BOUNDED = [option for option in OPTIONS if option.low is not None]
CHOOSING = [option for option in OPTIONS if option.choices]
NAMED = {option.name: option for option in OPTIONS}


def name_of(option: Any) -> str:
    return option.name if isinstance(option, Option) else repr(option)[:20]


def value_of(config: ServerConfig, option: Option) -> Any:
    return getattr(getattr(config, option.group), option.attribute)


def another(option: Option) -> Any:
    """A value that is not the default."""
    if option.multiple:
        return ("127.0.0.1:0", "unix:/tmp/x")
    if option.choices:
        return option.choices[-1]
    if option.high is not None:
        return int(option.high)
    return {int: 4321, float: 43.5, str: "text", bool: True}[option.type]


# ---- The table ----------------------------------------------------------------------------


def test_names_are_unique_and_every_field_is_an_option() -> None:
    names = [option.name for option in OPTIONS]
    assert len(set(names)) == len(names)
    fields = {
        (group.name, entry.name)
        for group in dataclasses.fields(ServerConfig)
        for entry in dataclasses.fields(getattr(ServerConfig(), group.name))
    }
    assert fields == {(option.group, option.attribute) for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS, ids=name_of)
def test_row(option: Option) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", option.name)
    assert option.flag == "--" + option.name.replace("_", "-")
    assert re.search(r"\.$", option.help)
    assert option.convert(option.default) == option.default
    assert value_of(ServerConfig(), option) == option.default
    assert option.multiple == (option.type is tuple)
    if option.type is float:
        assert option.unit == "seconds"


@pytest.mark.parametrize("option", OPTIONS, ids=name_of)
def test_round_trip(option: Option) -> None:
    value = another(option)
    config = ServerConfig.from_options(**{option.name: value})
    assert value_of(config, option) == value
    assert type(value_of(config, option)) is option.type
    for other in OPTIONS:
        if other is not option:
            assert value_of(config, other) == other.default


@pytest.mark.parametrize("option", OPTIONS, ids=name_of)
def test_typed_is_as_passed(option: Option) -> None:
    value = another(option)
    if not option.multiple:
        assert option.convert(str(value)) == value
        assert type(option.convert(str(value))) is option.type


def test_all_at_once() -> None:
    values = {option.name: another(option) for option in OPTIONS}
    config = ServerConfig.from_options(**values)
    assert {option.name: value_of(config, option) for option in OPTIONS} == values


def test_frozen_and_equal() -> None:
    config = ServerConfig.from_options(threads=3)
    assert config == ServerConfig.from_options(threads="3")
    assert hash(config) == hash(ServerConfig.from_options(threads=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.threads.count = 4  # type: ignore[misc]
    assert config.thread_count() == 3
    assert ServerConfig().thread_count() >= 8


# ---- Values that do not do ----------------------------------------------------------------


def refused(option: Option, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_options(**{option.name: value})
    message = str(caught.value)
    assert message.startswith(f"{option.name}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("option", NUMBERS, ids=name_of)
@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "1x",
        "nan",
        "inf",
        None,
        True,
        [],
        {},
        float("nan"),
        float("inf"),
        -float("inf"),
    ],
    ids=name_of,
)
def test_no_number(option: Option, value: Any) -> None:
    wanted = "a whole number" if option.type is int else "a number"
    assert f"is not {wanted}" in refused(option, value)


@pytest.mark.parametrize("option", [o for o in NUMBERS if o.type is int], ids=name_of)
@pytest.mark.parametrize("value", [4096.5, "4096.5", "1e4"])
def test_no_whole_number(option: Option, value: Any) -> None:
    assert "is not a whole number" in refused(option, value)


@pytest.mark.parametrize("option", [o for o in NUMBERS if o.type is float], ids=name_of)
def test_number_too_large_for_a_float(option: Option) -> None:
    refused(option, 10**400)


@pytest.mark.parametrize("option", BOUNDED, ids=name_of)
def test_below_the_least(option: Option) -> None:
    assert option.low is not None
    assert value_of(ServerConfig.from_options(**{option.name: option.low}), option) == option.low
    below = option.type(option.low) - 1
    assert refused(option, below).endswith(f"is less than the minimum, {option.low:g}")


@pytest.mark.parametrize("option", CHOOSING, ids=name_of)
def test_not_among_the_choices(option: Option) -> None:
    for choice in option.choices:
        assert option.convert(choice) == choice
        assert option.convert(choice.upper()) == choice
    assert refused(option, "xyzzy").endswith(f"is not one of {', '.join(option.choices)}")


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.type is str], ids=name_of)
@pytest.mark.parametrize("value", [None, 3, b"text", ["text"]], ids=name_of)
def test_no_text(option: Option, value: Any) -> None:
    assert "is not text" in refused(option, value)


@pytest.mark.parametrize("value", [(), [], None, 8.5, b"8000"], ids=name_of)
def test_no_bind(value: Any) -> None:
    refused(NAMED["bind"], value)


def test_did_you_mean() -> None:
    with pytest.raises(ConfigError, match=r"^thread: .*; did you mean threads\?$"):
        ServerConfig.from_options(thread=3)
    with pytest.raises(ConfigError, match=r"^xyzzy: there is no such option$"):
        ServerConfig.from_options(xyzzy=3)


@pytest.mark.parametrize(
    "groups",
    [
        {"limits": Limits(body=-1)},
        {"limits": Limits(field_count=0)},
        {"timeouts": Timeouts(head=0)},
        {"timeouts": Timeouts(head="soon")},  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_groups_are_checked_too(groups: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServerConfig(**groups)


def test_groups_hold_what_their_types_say() -> None:
    """`Limits(body="10M")` is either refused or converted: the worker compares it with numbers."""
    try:
        config = ServerConfig(limits=Limits(body="10M"))  # type: ignore[arg-type]
    except ConfigError:
        return
    assert config.limits.body == 10 * 1024**2


# ---- Sizes and addresses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("10M", 10 * 1024**2),
        ("2 G", 2 * 1024**3),
        ("1KiB", 1024),
        ("1kb", 1024),
        (" 7B ", 7),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert ServerConfig.from_options(limit_body=text).limits.body == size


@pytest.mark.parametrize("text", ["", "M", "1T", "1.5M", "-1", "1MM", "٣", "1 0", "0x10"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        parse_size(text)
    refused(NAMED["limit_body"], text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", ("tcp", "127.0.0.1", 8000)),
        (" 8000 ", ("tcp", "127.0.0.1", 8000)),
        (":8000", ("tcp", "0.0.0.0", 8000)),
        ("0:8000", ("tcp", "0.0.0.0", 8000)),
        ("*:8000", ("tcp", "::", 8000)),
        ("localhost:0", ("tcp", "localhost", 0)),
        ("localhost", ("tcp", "localhost", 8000)),
        ("0.0.0.0", ("tcp", "0.0.0.0", 8000)),
        ("http://127.0.0.1", ("tcp", "127.0.0.1", 8000, "http")),
        ("[::1]", ("tcp", "::1", 8000)),
        ("example.com:65535", ("tcp", "example.com", 65535)),
        ("[::]:8000", ("tcp", "::", 8000)),
        ("[::1]:8000", ("tcp", "::1", 8000)),
        ("[fe80::1%eth0]:8000", ("tcp", "fe80::1%eth0", 8000)),
        ("http://127.0.0.1:8000/", ("tcp", "127.0.0.1", 8000, "http")),
        ("https://localhost:8000", ("tcp", "localhost", 8000, "https")),
        ("http://unix:/run/x.sock", ("unix", "/run/x.sock", -1, "http")),
        ("http://fd://3", ("fd", "3", -1, "http")),
        ("unix:/run/x.sock", ("unix", "/run/x.sock", -1)),
        ("unix:///run/x.sock", ("unix", "/run/x.sock", -1)),
        ("unix:x.sock", ("unix", "x.sock", -1)),
        ("unix:@app", ("unix", "@app", -1)),
        ("unix:./@app", ("unix", "./@app", -1)),
        ("fd://3", ("fd", "3", -1)),
        ("fd:3", ("fd", "3", -1)),
    ],
)
def test_bind_spellings(text: str, address: Any) -> None:
    assert parse_bind(text) == BindAddress(*address)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "local",
            "::1:8000",
            "[x]",
            "1:2:3",
            "1.2.3",
            "example.com",
            "1:-1",
            "1:65536",
            "9" * 5000,
        ),
        *("unix:", "fd:x", "fd:", "ftp://x:1", "a b:1", "[::1]8000", "8000/x"),
    ],
    ids=name_of,
)
def test_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^bind: "):
        parse_bind(text)


# ---- One check for every way in -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"static_index": "index.html"}, "static_index"),
        ({"log_format": "no format"}, "log_format"),
        ({"trusted_proxies": "nowhere"}, "trusted_proxies"),
        ({"access_log": "syslog:nowhere"}, "access_log"),
        ({"request_id_echo": True}, "request_id_echo"),
        ({"metrics_bind": "https://:9000"}, "metrics_bind"),
        ({"keyfile": "key.pem"}, "keyfile"),
    ],
)
def test_the_worker_and_the_server_check_everything(
    options: dict[str, object], option: str
) -> None:
    config = ServerConfig.from_options(**options)
    with pytest.raises(ConfigError, match=f"^{option}: "):
        SyncWorker(config, no_app, None)
    with pytest.raises(ConfigError, match=f"^{option}: "):
        Server(no_app, config).bind()


def no_app(_request: Request) -> Response:
    raise AssertionError
