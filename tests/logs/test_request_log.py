"""What an access log can have beside its formats: users, answers' headers, logging, a selection."""

from __future__ import annotations

import base64
import json
import logging
import logging.handlers
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.assembly import check
from threadwell.worker.logs.format import compile_format
from threadwell.worker.request_id import request_id

from ..helpers.asgi_tools import UPGRADE, Receive, Scope, Send, answer, no_lifespan
from ..helpers.http2_client import Http2Client
from ..helpers.waiting import until
from ..helpers.wire_client import Client
from .test_access_log import event

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

TAGGED = ("X-Tag", "blue")


def sync(request: Request) -> Response:
    status = 500 if request.path == "/healthz/broken" else 200
    body: Any = iter([b"one"]) if request.path == "/stream" else b"one"
    return Response(status, [TAGGED, ("x-tag", "red")], body)


async def asynchronous(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    tags = [(b"x-tag", b"blue"), (b"x-tag", b"red")]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": tags})
    elif scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": tags})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body"})
    else:
        status = 500 if scope["path"] == "/healthz/broken" else 200
        await answer(send, b"one", status, *tags)


both = pytest.mark.parametrize("app", [sync, asynchronous])


# ---- Users and headers of answers ---------------------------------------------------------


def basic(user: str) -> str:
    return base64.b64encode(f"{user}:secret".encode("latin-1")).decode()


@pytest.mark.parametrize(
    ("field", "user"),
    [
        ("", "-"),
        (f"\r\nAuthorization: Basic {basic('anna')}", "anna"),
        (f"\r\nAuthorization: bAsIc   {basic('anna')}", "anna"),
        (f"\r\nAuthorization: Basic {basic('an na')}", r"an\x20na"),
        (f"\r\nAuthorization: Basic {basic(chr(10) + chr(34))}", r"\n\""),
        (f"\r\nAuthorization: Basic {basic('')}", "-"),
        ("\r\nAuthorization: Basic no/base64!", "-"),
        ("\r\nAuthorization: Bearer abcd", "-"),
    ],
)
def test_the_user(field: str, user: str) -> None:
    given = event(fields=field)
    assert compile_format("%u")(given) == user
    for name in ("common", "combined"):
        assert compile_format(name)(given).startswith(f"192.0.2.1 - {user} [")


@both
def test_headers_of_the_answer(serve: Serve, connect: Connect, app: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    options = {"access_log": str(path), "log_format": "%U %{x-tag}o %{X-None}o"}
    client = connect(serve(app, **options))
    client.get("/")
    client.get("/stream")
    client.send(b"nonsense\r\n\r\n")
    client.answer()
    lines = ["/ blue, red -", "/stream blue, red -", "- - -"]
    until(lambda: path.read_text().splitlines() == lines)


@both
def test_headers_of_the_answer_over_http2(
    serve_http2: Serve, http2: Callable[..., Http2Client], app: Any, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    options = {"access_log": str(path), "log_format": "%U %{x-tag}o"}
    client = http2(serve_http2(app, **options))
    client.fetch("/")
    client.fetch("/stream")
    until(lambda: path.read_text().splitlines() == ["/ blue, red", "/stream blue, red"])


def test_headers_of_a_websocket(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "log"
    client = connect(serve(asynchronous, access_log=str(path), log_format="%s %{x-tag}o"))
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert client.answer().status == 101
    client.close()
    until(lambda: path.read_text().splitlines() == ["101 blue, red"])


# ---- A logger -----------------------------------------------------------------------------


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[logging.LogRecord, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record, request_id()))


@pytest.fixture
def records() -> Any:
    logger = logging.getLogger("threadwell.access")
    handler = Records()
    logger.addHandler(handler)
    yield handler.seen
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@both
@pytest.mark.parametrize("log_format", ["combined", "json"])
def test_a_logger(
    serve: Serve,
    connect: Connect,
    app: Any,
    log_format: str,
    records: list[tuple[logging.LogRecord, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"access_log": "logging", "log_format": log_format, "log_level": "critical"}
    client = connect(serve(app, request_id_header="X-Id", **options))
    client.get("/a?b")
    client.send(b"nonsense\r\n\r\n")
    client.answer()
    until(lambda: len(records) == 2)
    (record, _), (refused, _) = records
    assert (record.levelno, record.name) == (logging.INFO, "threadwell.access")
    if log_format == "json":
        assert json.loads(record.getMessage())["target"] == "/a?b"
    else:
        assert '"GET /a?b HTTP/1.1" 200 3' in record.getMessage()
    known = vars(record)
    assert (known["client"], known["method"], known["path"]) == ("127.0.0.1", "GET", "/a")
    assert (known["status"], known["body_bytes"]) == (200, 3)
    assert 0 < known["seconds"] < 60
    assert len(known["request_id"]) == 32
    known = vars(refused)
    assert (known["status"], known["method"], known["path"]) == (400, "", "")
    assert not list(tmp_path.iterdir())  # no file of that name


def test_a_logger_that_is_off_costs_no_line(
    serve: Serve, connect: Connect, records: list[tuple[logging.LogRecord, str]]
) -> None:
    logging.getLogger("threadwell.access").setLevel(logging.WARNING)
    assert connect(serve(sync, access_log="logging")).get().status == 200
    assert records == []


# ---- A selection --------------------------------------------------------------------------


@both
@pytest.mark.parametrize("target", ["file", "logging"])
def test_paths_that_are_left_out(
    serve: Serve,
    connect: Connect,
    app: Any,
    target: str,
    records: list[tuple[logging.LogRecord, str]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    access_log = str(path) if target == "file" else target
    options = {"access_log": access_log, "log_format": "%U %s"}
    client = connect(serve(app, access_log_skip=["/healthz", "/probes/"], **options))
    paths = ["/healthz", "/healthz?a", "/healthz/live", "/healthzz", "/probes", "/probes/a"]
    for each in [*paths, "/healthz/broken", "/last"]:
        client.get(each)

    def lines() -> list[str]:
        if target == "file":
            return path.read_text().splitlines()
        return [record.getMessage() for record, _ in records]

    until(lambda: "/last 200" in lines())
    assert lines() == ["/healthzz 200", "/probes 200", "/healthz/broken 500", "/last 200"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"access_log": "-", "access_log_skip": ["healthz"]},
            "access_log_skip: 'healthz' is not a path; begin it with /",
        ),
        (
            {"access_log_skip": ["/healthz"]},
            "access_log_skip: there is no access log; give access_log",
        ),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(ServerConfig.from_options(**options))
    assert str(caught.value) == message
