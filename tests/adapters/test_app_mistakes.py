"""An application's mistake is one line that names the application and the cause."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from threadwell import Request, Response, ThreadedServer

from ..helpers.asgi_tools import LOOPS, Message, Receive, Scope, Send, no_lifespan
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

HERE = __name__
FAILED = "The application failed on GET /: "
HEADERS = "; write a list of pairs, such as [('Content-Type', 'text/plain')]"
WSGI = "; a WSGI application returns an iterable of bytes"


# ---- SyncApps --------------------------------------------------------------------------------


def text(request: Request) -> Any:
    return "hello"


def table(request: Request) -> Any:
    return {"hello": "world"}


def make_site(name: Any) -> Any:
    return Flask("site")


def framework(request: Request) -> Any:
    return Flask.response_class("hello")


def mapping(request: Request) -> Response:
    return Response(200, {"Content-Type": "text/plain"}, b"hello")  # type: ignore[arg-type]


def no_headers(request: Request) -> Response:
    return Response(200, None, b"hello")  # type: ignore[arg-type]


def text_body(request: Request) -> Response:
    return Response(200, [], "hello")  # type: ignore[arg-type]


def no_body(request: Request) -> Response:
    return Response(200, [], None)  # type: ignore[arg-type]


def number(request: Request) -> Response:
    return Response(200, [], 5)  # type: ignore[arg-type]


def text_blocks(request: Request) -> Response:
    return Response(200, [], [b"hello", "you"])  # type: ignore[list-item]


def text_stream(request: Request) -> Response:
    return Response(200, [], iter(["hello"]))  # type: ignore[arg-type]


def bad_name(request: Request) -> Response:
    return Response(200, [("a b", "c")], b"hello")


def wsgi_text(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return "hello"


def wsgi_none(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])


def wsgi_nothing(environ: Any, start_response: Any) -> Any:
    return None


def wsgi_mapping(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", {"Content-Type": "text/plain"})
    return [b"hello"]


def wsgi_text_block(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return ["hello"]


def wsgi_text_blocks(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b"hello", "you"]


def wsgi_text_stream(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    yield "hello"


def wsgi_no_start(environ: Any, start_response: Any) -> Any:
    return [b"hello", b"you"]


_INVALID = [
    (text, "a str; a SyncApp returns a threadwell.Response"),
    (table, "a dict; a SyncApp returns a threadwell.Response"),
    (framework, "a flask.wrappers.Response; a SyncApp returns a threadwell.Response"),
    (mapping, f"its headers are a dict{HEADERS}"),
    (no_headers, f"its headers are None{HEADERS}"),
    (text_body, "its body is a str; encode it, as with text.encode()"),
    (no_body, "its body is None"),
    (number, "its body is an int; a body is bytes or an iterable of bytes"),
    (text_blocks, "its body has a str; a body is made of bytes"),
    (text_stream, "a body is made of bytes, not str"),
    (bad_name, "the header name 'a b' is not a token"),
    (wsgi_text, f"a str{WSGI}, such as [text.encode()]"),
    (wsgi_none, f"None{WSGI} (is a `return` missing?)"),
    (wsgi_nothing, f"None{WSGI} (is a `return` missing?)"),
    (wsgi_mapping, f"its headers are a dict{HEADERS}"),
    (wsgi_text_block, "its body is a str; encode it, as with text.encode()"),
    (wsgi_text_blocks, "its body has a str; a body is made of bytes"),
    (wsgi_text_stream, "a body is made of bytes, not str"),
    (wsgi_no_start, "it did not call start_response"),
]
MISTAKES = [
    *((app, f"{HERE}:{app.__name__} gave an invalid response: {why}") for app, why in _INVALID),
    (
        make_site,
        f"{HERE}:make_site is a factory, not a SyncApp: it returned an application,"
        f" a flask.app.Flask; serve {HERE}:make_site()",
    ),
]


@pytest.fixture(params=["threads", "watched", "static", "http2"])
def fetch(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[Any], Any]:
    """`fetch(app)`: the status and the body of an answer of `app`, on threads and with HTTP/2."""

    def over_http1(app: Any) -> tuple[int, bytes]:
        options: dict[str, Any] = {}
        if request.param == "watched":
            options["access_log"] = str(tmp_path / "log")
        elif request.param == "static":
            options["static"] = [f"/static={tmp_path}"]
        server = request.getfixturevalue("serve")(app, **options)
        answer = request.getfixturevalue("connect")(server).get()
        return answer.status, answer.body

    def over_http2(app: Any) -> tuple[int, bytes]:
        server = request.getfixturevalue("serve_http2")(app)
        answer = request.getfixturevalue("http2")(server).fetch()
        return answer.status, answer.body

    return over_http2 if request.param == "http2" else over_http1


def errors(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """Each message of an error, and whether it has a traceback."""
    return [
        (record.getMessage(), bool(record.exc_info))
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]


@pytest.mark.parametrize(("app", "why"), MISTAKES, ids=[app.__name__ for app, _ in MISTAKES])
def test_on_threads(
    fetch: Callable[[Any], Any], caplog: pytest.LogCaptureFixture, app: Any, why: str
) -> None:
    assert fetch(app) == (500, b"Internal Server Error\n")
    assert errors(caplog) == [(FAILED + why, False)]


def forgotten(request: Request) -> Any:
    Response(200, [], b"hello")


def test_a_forgotten_return(fetch: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    assert fetch(forgotten) == (501, b"Not Implemented\n")
    why = (
        f"{HERE}:forgotten needs an ASGI application beside it for this: it returned None"
        " (is a `return` missing?)"
    )
    assert errors(caplog) == [(FAILED + why, False)]


def late(request: Request) -> Response:
    return Response(200, [], iter([b"hello", "you"]))  # type: ignore[arg-type]


def test_in_the_middle_of_an_answer(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    assert not connect(serve(late)).get().complete
    why = f"{HERE}:late gave an invalid response: a body is made of bytes, not str"
    text = f"The application failed in the middle of its answer to GET /: {why}"
    assert errors(caplog) == [(text, False)]


# ---- ASGI ------------------------------------------------------------------------------------

START: Message = {"type": "http.response.start", "status": 200}
BODY: Message = {"type": "http.response.body", "body": b"hello"}


async def asgi_mapping(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    await send({**START, "headers": {b"content-type": b"text/plain"}})
    await send(BODY)


async def asgi_text(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    await send(START)
    await send({**BODY, "body": "hello"})


async def asgi_status(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    await send({**START, "status": "200 OK"})


ASGI_MISTAKES = [
    (
        asgi_mapping,
        "the header b'content-type' is not a pair; headers are a list of pairs, and not a dict",
    ),
    (asgi_text, "a body is made of bytes, not str"),
    (asgi_status, "'200 OK' is not the status of a final response"),
]


def fetch_from_loop(request: pytest.FixtureRequest, protocol: str, app: Any, loop: str) -> int:
    if protocol == "http2":
        server = request.getfixturevalue("serve_http2")(app, loop=loop)
        return int(request.getfixturevalue("http2")(server).fetch().status)
    server = request.getfixturevalue("serve")(app, loop=loop)
    return int(request.getfixturevalue("connect")(server).get().status)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("protocol", ["http1", "http2"])
@pytest.mark.parametrize(("app", "why"), ASGI_MISTAKES, ids=[a.__name__ for a, _ in ASGI_MISTAKES])
def test_on_loops(
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    app: Any,
    why: str,
    protocol: str,
    loop: str,
) -> None:
    assert fetch_from_loop(request, protocol, app, loop) == 500
    text = f"{FAILED}{HERE}:{app.__name__} gave an invalid response: {why}"
    assert errors(caplog) == [(text, True)]
    [frame] = [line for line in caplog.text.splitlines() if line.startswith("  File ")]
    assert frame.endswith(f"in {app.__name__}")


def plain(scope: Scope, receive: Receive, send: Send) -> Any:
    return [b"hello"]


async def two(scope: Scope, receive: Receive) -> None: ...


@pytest.mark.parametrize("app", [plain, two])
def test_what_cannot_be_awaited(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    assert connect(serve(app, lifespan="off")).get().status == 500
    [(text, has_traceback)] = errors(caplog)
    name = f"{HERE}:{app.__name__}"
    called = f"{FAILED}{name} is not called as ASGI wants, await app(scope, receive, send): "
    assert text.startswith(called)
    assert not has_traceback


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)


def test_no_answer(serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    assert connect(serve(silent)).get().status == 500
    text = f"The application left GET / without an answer: {HERE}:silent returned too soon"
    assert errors(caplog) == [(text, False)]


# ---- Hybrids ---------------------------------------------------------------------------------


def asynchronous(request: Request) -> Response:
    async def blocks() -> Any:
        yield b"hello"

    return Response(200, {"a": "b"}, blocks())  # type: ignore[arg-type]


def test_an_asynchronous_body(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(asynchronous, asgi_app=silent)
    assert connect(server).get().status == 500
    why = f"the application gave an invalid response: its headers are a dict{HEADERS}"
    assert errors(caplog) == [(FAILED + why, False)]


WRONG_KINDS = [
    (
        lambda: ThreadedServer(text, asgi_app=wsgi_none),  # type: ignore[arg-type]
        f"{HERE}:wsgi_none cannot be called with (scope, receive, send), as an ASGI application"
        " is; it looks like a WSGI application",
    ),
    (
        lambda: ThreadedServer(text, interface="wsgi"),
        f"{HERE}:text cannot be called with (environ, start_response), as a WSGI application is;"
        " it looks like a SyncApp",
    ),
    (
        lambda: ThreadedServer(wsgi_none, interface="sync"),
        f"{HERE}:wsgi_none cannot be called with (request), as a SyncApp is; it looks like a WSGI"
        " application",
    ),
]


@pytest.mark.parametrize(("make", "text"), WRONG_KINDS)
def test_a_kind_that_it_is_not(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value) == text
