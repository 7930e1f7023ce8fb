"""Request ids: whose is taken, who sees them, and that they are of one request only."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.config.groups import Limits, Log
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.request_id import RequestIdFilter, RequestIds, check, request_id

from ..helpers.asgi_tools import UPGRADE, Message, Receive, Scope, Seen, Send, answer, no_lifespan
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

HEADER = "X-Request-ID"
MADE = r"[0-9a-f]{32}"
ON = {"request_id_header": HEADER, "request_id_echo": True}


def tell(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A WSGI application that says which id it sees, in which ways."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ.get('HTTP_X_REQUEST_ID', '')} {request_id()}".encode()]


class Native:
    threadwell_interface = "sync"

    def __call__(self, request: Request) -> Response:
        if request.path == "/fail":
            raise ValueError("on purpose")
        if request.path == "/stream":
            return Response(200, [], iter([b"one", b"two"]))
        if request.path == "/broken":
            return Response(200, [], self.broken())
        if request.path == "/push":
            request.stream(Response(200)).write(b"pushed")
        if request.path == "/own":
            return Response(200, [("x-request-id", "mine")], b"")
        values = [value for name, value in request.headers if name == "x-request-id"]
        return Response(200, [], f"{values} {request.header(HEADER)} {request_id()}".encode())

    def broken(self) -> Any:
        yield b"one"
        raise ValueError("on purpose")


def sent_id(answer: Any) -> str:
    value = answer.header("x-request-id")
    assert value is not None
    return str(value)


# ---- What the application sees --------------------------------------------------------------


def test_every_request_has_another_id_which_the_client_is_told(
    serve: Serve, connect: Connect
) -> None:
    client = connect(serve(tell, **ON))
    seen = set()
    for _ in range(5):
        found = client.get()
        assert re.fullmatch(f"({MADE}) \\1", found.body.decode())
        assert found.body.decode().split()[0] == sent_id(found)
        seen.add(found.body)
    assert len(seen) == 5


def test_what_anybody_sends_is_replaced(serve: Serve, connect: Connect) -> None:
    client = connect(serve(Native(), **ON))
    twice = f"{HEADER}: forged\r\nx-ReQuest-Id: forged too\r\n"
    found = client.get(headers=twice)
    made = sent_id(found)
    assert re.fullmatch(MADE, made)
    assert found.body.decode() == f"['{made}'] {made} {made}"


def test_nothing_is_there_unless_asked_for(serve: Serve, connect: Connect) -> None:
    client = connect(serve(tell))
    found = client.get(headers=f"{HEADER}: the-clients\r\n")
    assert found.body == b"the-clients "
    assert found.header("x-request-id") is None
    assert request_id() == ""


def test_without_echo_the_client_is_told_nothing(serve: Serve, connect: Connect) -> None:
    found = connect(serve(tell, request_id_header=HEADER)).get()
    assert found.header("x-request-id") is None
    assert re.fullmatch(f"{MADE} {MADE}", found.body.decode())


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("b5f1a2f0-1c2d-4e5f-8a9b-0c1d2e3f4a5b", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("a", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("with blank", False),
        ('quote"', False),
        ("semi;colon", False),
        ("\xe9", False),
        ("one, two", False),
    ],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_a_trusted_proxys_id_is_taken_if_it_is_well_formed(
    sent: str, taken: bool, trusted: bool
) -> None:
    ids = RequestIds(HEADER)
    raw = f"GET / HTTP/1.1\r\nHost: x\r\n{HEADER}: {sent}".encode("latin-1")
    head = RequestParser(Limits()).parse(raw)
    request_id, given = ids.give(head, trusted=trusted)
    assert (request_id == sent) is (taken and trusted)
    assert given.field(HEADER) == request_id
    assert [value for name, value in given.headers if name == "x-request-id"] == [request_id]
    assert given._replace(block=b"", variables={}) == head._replace(block=b"", variables={})


@pytest.mark.parametrize("path", ["/stream", "/push", "/fail", "/"])
def test_every_kind_of_answer_says_the_id(serve: Serve, connect: Connect, path: str) -> None:
    client = connect(serve(Native(), **ON))
    first, second = client.get(path), client.get(path)
    assert re.fullmatch(MADE, sent_id(first))
    assert sent_id(first) != sent_id(second)


def test_the_applications_own_word_goes_first(serve: Serve, connect: Connect) -> None:
    assert sent_id(connect(serve(Native(), **ON)).get("/own")) == "mine"


def test_a_refusal_says_no_id_of_a_request_before_it(serve: Serve, connect: Connect) -> None:
    client = connect(serve(tell, **ON))
    client.get()
    client.send(b"bad\r\n\r\n")
    refused = client.answer()
    assert refused.status == 400
    assert refused.header("x-request-id") is None


# ---- On event loops -------------------------------------------------------------------------


async def tell_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    values = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if scope["path"] == "/fail":
        raise ValueError("on purpose")
    body = b" ".join(values) + b" " + request_id().encode()
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})
        return
    await answer(send, body)


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_an_asgi_application_sees_it(serve: Serve, connect: Connect, path: str) -> None:
    client = connect(serve(tell_asgi, **ON))
    seen = set()
    for _ in range(3):
        found = client.get(path, headers=f"{HEADER}: forged\r\n")
        made = sent_id(found)
        assert found.body.decode() == f"{made} {made}"
        seen.add(made)
    assert len(seen) == 3
    assert re.fullmatch(MADE, sent_id(client.get("/fail")))


def test_a_websocket_has_one(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        seen.add((dict(scope["headers"])[b"x-request-id"].decode(), request_id()))
        await receive()
        await send({"type": "websocket.accept"})

    path = tmp_path / "log"
    server = serve(app, access_log=str(path), log_format="%L %s", **ON)
    client = connect(server)
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert client.answer().status == 101
    [(in_scope, in_context)] = seen.wait()
    assert re.fullmatch(MADE, in_scope)
    assert in_context == in_scope
    client.close()
    server.stop()
    assert path.read_text() == f"{in_scope} 101\n"


def test_in_a_hybrid_both_sides_see_the_same(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    seen: list[str] = []

    def first(request: Request) -> Response | None:
        seen.append(request_id())
        return None

    first.threadwell_interface = "sync"  # type: ignore[attr-defined]
    path = tmp_path / "log"
    server = serve(first, asgi_app=tell_asgi, access_log=str(path), log_format="%L", **ON)
    found = connect(server).get()
    server.stop()
    assert found.body.decode() == f"{seen[0]} {seen[0]}"
    assert path.read_text() == seen[0] + "\n"


# ---- Logs -----------------------------------------------------------------------------------


def test_the_access_log_has_it(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = serve(Native(), access_log=str(path), log_format="json", **ON)
    client = connect(server)
    told = [sent_id(client.get(path)) for path in ("/", "/stream", "/fail", "/push")]
    client.send(b"bad\r\n\r\n")
    client.answer()
    server.stop()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["request_id"] for line in lines] == [*told, ""]


@pytest.mark.parametrize("path", ["/fail", "/broken"])
@pytest.mark.parametrize("app", [Native(), tell_asgi])
def test_the_error_log_has_one_record_with_method_path_and_id(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, app: Any, path: str
) -> None:
    if app is tell_asgi and path == "/broken":
        path = "/fail"
    server = serve(app, request_id_header=HEADER, request_id_echo=True)
    client = connect(server)
    client.send(f"GET {path}?secret HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    told = sent_id(client.answer())
    server.stop()
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.getMessage().endswith(f"GET {path} [{told}]")
    assert caplog.text.count("Traceback (most recent call last)") == 1
    assert caplog.text.count("ValueError: on purpose") == 1


def test_without_ids_the_error_log_has_method_and_path(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(Native())
    connect(server).get("/fail")
    server.stop()
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.getMessage() == "The application failed on GET /fail"


def test_a_filter_gives_it_to_the_applications_own_log(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    logger = logging.getLogger("tests.request_id")
    handler = logging.FileHandler(tmp_path / "log")
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    logger.addHandler(handler)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        logger.warning("within")
        return tell(environ, start_response)

    try:
        told = sent_id(connect(serve(app, **ON)).get())
        logger.warning("without")
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log").read_text() == f"{told} within\n- without\n"


def test_threads_make_ids_of_their_own(serve: Serve, connect: Connect) -> None:
    barrier = threading.Barrier(4)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        barrier.wait(10)
        return tell(environ, start_response)

    server = serve(app, threads=4, **ON)
    clients = [connect(server) for _ in range(4)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    told = {client.answer().body for client in clients}
    assert len(told) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_id_header": "X Request"}, "not a header name"),
        ({"request_id_header": "X_Request_ID"}, "not a header name"),
        ({"request_id_header": "X-Id:"}, "not a header name"),
    ],
)
def test_what_cannot_be_is_refused(options: Message, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerConfig.from_options(**options)


@pytest.mark.parametrize("app", [tell, tell_asgi])
def test_no_id_can_be_sent_back_where_there_is_none(app: Any) -> None:
    server = ThreadedServer(app, bind="127.0.0.1:0", request_id_echo=True)
    try:
        with pytest.raises(ConfigError, match="without request_id_header"):
            server.start()
    finally:
        server.stop()
    with pytest.raises(ConfigError, match="without request_id_header"):
        check(Log(request_id_echo=True))


@pytest.mark.parametrize("app", [tell, tell_asgi])
@pytest.mark.parametrize(("trusted", "taken"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
def test_the_proxies_that_are_trusted(
    serve: Serve, connect: Connect, app: Any, trusted: str, taken: bool
) -> None:
    client = connect(serve(app, trusted_proxies=trusted, **ON))
    forwarded = "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: http\r\n"
    found = client.get(headers=f"{HEADER}: the-proxys\r\n{forwarded}")
    assert (sent_id(found) == "the-proxys") is taken
    assert found.body.decode() == f"{sent_id(found)} {sent_id(found)}"
    assert re.fullmatch(MADE, sent_id(client.get(headers=f"{HEADER}: not one\r\n")))
