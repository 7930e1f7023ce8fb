"""`SyncWorker` against the reference page it grew out of: every name, signature and promise."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import Request, Response, ServerConfig, SyncWorker
from threadwell.worker import sync_worker
from threadwell.worker.config.groups import Limits
from threadwell.worker.connection import Connection, State
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.http1.writer import imf_fixdate
from threadwell.worker.messages import RequestReceived
from threadwell.worker.sync_worker import _classify_request, _RequestMeta

from ..helpers.waiting import until
from ..helpers.wire_client import Client

POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
KEYWORD = inspect.Parameter.KEYWORD_ONLY
NONE = inspect.Parameter.empty

Row = list[tuple[str, Any, Any]]

#: The page, by hand: where, the name, and each parameter with its kind and default.
PAGE: list[tuple[Any, str, Row]] = [
    (_RequestMeta, "__init__", [("self", POSITIONAL, NONE)]),
    (
        SyncWorker,
        "__init__",
        [
            ("self", POSITIONAL, NONE),
            ("config", POSITIONAL, NONE),
            ("app", POSITIONAL, NONE),
            ("sock", POSITIONAL, NONE),
            ("worker_id", KEYWORD, 0),
            ("shutdown_event", KEYWORD, None),
            ("ssl_context", KEYWORD, None),
            ("lifecycle_collector", KEYWORD, None),
            ("async_pool", KEYWORD, None),
            ("conn_queue", KEYWORD, None),
            ("sync_app", KEYWORD, None),
        ],
    ),
    (SyncWorker, "set_lifespan_state", [("self", POSITIONAL, NONE), ("state", POSITIONAL, NONE)]),
    (SyncWorker, "start_draining", [("self", POSITIONAL, NONE)]),
    (SyncWorker, "is_idle", [("self", POSITIONAL, NONE)]),
    (SyncWorker, "run", [("self", POSITIONAL, NONE)]),
    (
        SyncWorker,
        "_run_from_queue",
        [
            ("self", POSITIONAL, NONE),
            ("poll_interval", POSITIONAL, NONE),
            ("runner", POSITIONAL, NONE),
        ],
    ),
    (
        SyncWorker,
        "_run_accept_loop",
        [
            ("self", POSITIONAL, NONE),
            ("poll_interval", POSITIONAL, NONE),
            ("runner", POSITIONAL, NONE),
        ],
    ),
    (
        SyncWorker,
        "_handle_connection",
        [
            ("self", POSITIONAL, NONE),
            ("conn", POSITIONAL, NONE),
            ("addr", POSITIONAL, NONE),
            ("runner", POSITIONAL, NONE),
        ],
    ),
    (
        SyncWorker,
        "_handle_connection_impl",
        [
            ("self", POSITIONAL, NONE),
            ("conn", POSITIONAL, NONE),
            ("addr", POSITIONAL, NONE),
            ("runner", POSITIONAL, NONE),
        ],
    ),
    (SyncWorker, "_recv_request_fast", [("self", POSITIONAL, NONE), ("conn", POSITIONAL, NONE)]),
    (SyncWorker, "_cached_date_header", [("self", POSITIONAL, NONE)]),
    (
        SyncWorker,
        "_send_error",
        [
            ("self", POSITIONAL, NONE),
            ("conn", POSITIONAL, NONE),
            ("status", POSITIONAL, NONE),
            ("message", POSITIONAL, NONE),
        ],
    ),
    (sync_worker, "_classify_request", [("request", POSITIONAL, NONE)]),
]

RETURNS = {
    "__init__": "None",
    "set_lifespan_state": "None",
    "start_draining": "None",
    "is_idle": "bool",
    "run": "None",
    "_run_from_queue": "None",
    "_run_accept_loop": "None",
    "_handle_connection": "None",
    "_handle_connection_impl": "bool",
    "_cached_date_header": "bytes | None",
    "_send_error": "None",
    "_classify_request": "_RequestMeta",
}


@pytest.mark.parametrize(
    ("owner", "name", "row"), PAGE, ids=[f"{owner.__name__}.{name}" for owner, name, _ in PAGE]
)
def test_a_signature_is_the_pages(owner: Any, name: str, row: Row) -> None:
    signature = inspect.signature(getattr(owner, name))
    parameters = signature.parameters.values()
    assert [(each.name, each.kind, each.default) for each in parameters] == row
    if name in RETURNS:
        assert signature.return_annotation == RETURNS[name]
    else:
        assert str(signature.return_annotation).startswith("tuple[RequestReceived | None, bytes")
    assert inspect.getdoc(getattr(owner, name)) or name == "__init__"


# ---- What each of them does ----------------------------------------------------------------


def app(request: Request) -> Response | None:
    if request.path == "/none":
        return None
    return Response(200, [("X-Path", request.path)], b"hello " + request.read())


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing runs this here")


class FakePool:
    """Adopts connections, and remembers them."""

    def __init__(self) -> None:
        self.adopted: list[tuple[Connection, Request, dict[str, Any]]] = []

    def adopt(self, connection: Connection, request: Request, state: dict[str, Any]) -> None:
        self.adopted.append((connection, request, state))


@pytest.fixture
def make() -> Iterator[Callable[..., SyncWorker]]:
    """`make(...)`: a worker that is not running, with a listening socket."""
    workers: list[SyncWorker] = []

    def build(*, options: dict[str, Any] | None = None, **keywords: Any) -> SyncWorker:
        config = ServerConfig.from_options(
            **{"threads": 2, "graceful_timeout": 2, **(options or {})}
        )
        if "sock" not in keywords and "conn_queue" not in keywords:
            keywords["sock"] = socket.create_server(("127.0.0.1", 0))
        made = SyncWorker(config, keywords.pop("app", app), keywords.pop("sock", None), **keywords)
        workers.append(made)
        return made

    yield build
    for worker in workers:
        worker.close()


@contextlib.contextmanager
def running(worker: SyncWorker) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield thread
    finally:
        worker.shutdown(2)
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Client]]:
    """A bare blocking socket, and a client on its other end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, Client(theirs)


def port_of(worker: SyncWorker) -> int:
    return next(iter(worker.poller.listeners.values())).address[1]


def fetch(port: int, path: str = "/") -> http.client.HTTPResponse:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", path, headers={"Connection": "close"})
    return client.getresponse()


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_run_accepts_connections_until_shutdown(make: Callable[..., SyncWorker]) -> None:
    worker = make()
    port = port_of(worker)
    with running(worker) as thread:
        for _ in range(3):
            assert fetch(port).read() == b"hello "
        worker.shutdown(2)
        thread.join(5)
        assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        fetch(port)


def test_shutdown_event_stops_run(make: Callable[..., SyncWorker]) -> None:
    event = threading.Event()
    worker = make(shutdown_event=event)
    port = port_of(worker)
    with running(worker) as thread:
        assert fetch(port).read() == b"hello "
        event.set()
        thread.join(4)
        assert not thread.is_alive()


def test_shutdown_event_stops_run_under_load(make: Callable[..., SyncWorker]) -> None:
    """There is always another request, and `run` must end all the same."""
    event, quit_ = threading.Event(), threading.Event()
    worker = make(shutdown_event=event)
    port = port_of(worker)
    answers: list[bytes] = []

    def hammer() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while not quit_.is_set():
                client.request("GET", "/")
                answers.append(client.getresponse().read())
        client.close()

    clients = [threading.Thread(target=hammer) for _ in range(6)]
    with running(worker) as thread:
        for client in clients:
            client.start()
        until(lambda: len(answers) > 100)
        event.set()
        thread.join(5)
        ended = not thread.is_alive()
        quit_.set()
        for client in clients:
            client.join()
    assert ended


def test_start_draining_stops_accepting_and_ends_idle_connections(
    make: Callable[..., SyncWorker],
) -> None:
    worker = make()
    port = port_of(worker)
    with running(worker), socket.create_connection(("127.0.0.1", port), 5) as raw:
        client = Client(raw)
        assert client.get().status == 200
        worker.start_draining()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        assert client.closed()
        worker.start_draining()  # once more does no harm


def test_is_idle(make: Callable[..., SyncWorker]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waits(request: Request) -> Response:
        begun.set()
        go_on.wait(5)
        return Response(200)

    worker = make(app=waits)
    port = port_of(worker)
    assert worker.is_idle()
    with running(worker), socket.create_connection(("127.0.0.1", port), 5) as raw:
        until(lambda: worker.poller.connections)
        until(worker.is_idle)
        client = Client(raw)
        client.send(GET)
        assert begun.wait(5)
        assert not worker.is_idle()
        go_on.set()
        assert client.answer().status == 200
        until(worker.is_idle)


def test_worker_ids_count_on(make: Callable[..., SyncWorker]) -> None:
    worker = make(worker_id=10, options={"threads": 3})
    with running(worker):
        until(lambda: len(worker.pool.workers) == 3)
        assert {each.worker_id for each in worker.pool.workers} == {10, 11, 12}


def test_the_lifespan_state_reaches_the_pool(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    pool = FakePool()
    worker = make(app=asgi, sync_app=app, async_pool=pool)
    state = {"database": object()}
    worker.set_lifespan_state(state)
    port = port_of(worker)
    with running(worker), socket.create_connection(("127.0.0.1", port), 5) as raw:
        client = Client(raw)
        client.send(b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET /next")
        until(lambda: pool.adopted)
        connection, request, given = pool.adopted[0]
        assert given is state
        assert connection.state is State.ADOPTED
        assert (request.method, request.path, request.read()) == ("POST", "/none", b"body")
        assert bytes(connection.buffer) == b"GET /next"
        assert connection not in worker.poller.connections
        connection.close()


def test_a_websocket_goes_to_the_pool_and_never_to_the_sync_app(
    make: Callable[..., SyncWorker],
) -> None:
    pool = FakePool()
    calls: list[str] = []

    def counts(request: Request) -> Response:
        calls.append(request.path)
        return Response(200)

    worker = make(app=asgi, sync_app=counts, async_pool=pool)
    with running(worker), socket.create_connection(("127.0.0.1", port_of(worker)), 5) as raw:
        raw.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
            b"Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        until(lambda: pool.adopted)
        assert calls == []
        pool.adopted[0][0].close()


def test_run_from_queue_takes_what_a_distributor_puts_there(
    make: Callable[..., SyncWorker],
) -> None:
    conn_queue: queue.Queue[tuple[socket.socket, object]] = queue.Queue()
    worker = make(conn_queue=conn_queue)
    accepting = socket.create_server(("127.0.0.1", 0))
    with running(worker), accepting, socket.create_connection(accepting.getsockname(), 5) as raw:
        conn_queue.put(accepting.accept())
        client = Client(raw)
        for _ in range(3):
            assert client.get("/queued").header("x-path") == "/queued"


def test_run_accept_loop_ends_when_told(make: Callable[..., SyncWorker]) -> None:
    worker = make()
    worker.leader_follower.joined()
    assert worker.leader_follower.acquire_slot(worker.slot)
    thread = threading.Thread(target=worker._run_accept_loop, args=(0.1, None))
    thread.start()
    assert fetch(port_of(worker)).read() == b"hello "
    worker.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_handle_connection_serves_a_bare_socket_to_its_end(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    worker = make()
    client.send(GET + b"POST /two HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
    thread = threading.Thread(target=worker._handle_connection, args=(ours, ("192.0.2.1", 5), None))
    thread.start()
    assert client.answer().body == b"hello "
    client.send(b"dy")
    assert client.answer().body == b"hello body"
    client.send(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert client.answer().header("connection") == "close"
    thread.join(5)
    assert not thread.is_alive()
    assert client.closed()


def test_handle_connection_lets_nothing_escape(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    def fails(request: Request) -> Response:
        raise SystemExit(3)

    ours, client = pair
    worker = make(app=fails)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    worker._handle_connection(ours, ("192.0.2.1", 5), None)
    assert client.answer().status == 500
    assert worker.slot.serving is None


@pytest.mark.parametrize(("path", "handed_off"), [("/none", True), ("/", False)])
def test_handle_connection_impl_says_whether_it_handed_off(
    make: Callable[..., SyncWorker],
    pair: tuple[socket.socket, Client],
    path: str,
    handed_off: bool,
) -> None:
    ours, client = pair
    pool = FakePool()
    worker = make(app=asgi, sync_app=app, async_pool=pool)
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    result = worker._handle_connection_impl(ours, ("192.0.2.1", 5), None)
    assert result is handed_off
    assert len(pool.adopted) == handed_off
    for connection, _, _ in pool.adopted:
        connection.close()


def test_handle_connection_impl_without_a_pool_answers_501(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    worker = make()
    client.send(b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert worker._handle_connection_impl(ours, ("192.0.2.1", 5), None) is False
    assert client.answer().status == 501


def test_recv_request_fast_returns_the_whole_request(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    worker = make()
    client.send(b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
    request, body = worker._recv_request_fast(ours)
    assert isinstance(request, RequestReceived)
    assert (request.method, request.path, request.query) == ("POST", "/a", "b")
    assert body == b"body"


def test_recv_request_fast_reads_a_blocking_socket_on(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    worker = make()

    def send_slowly() -> None:
        for octet in b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n":
            client.send(bytes([octet]))
        client.send(b"2\r\nbo\r\n")
        client.send(b"2\r\ndy\r\n0\r\n\r\n")

    thread = threading.Thread(target=send_slowly)
    thread.start()
    request, body = worker._recv_request_fast(ours)
    thread.join()
    assert request is not None
    assert body == b"body"


@pytest.mark.parametrize(
    "data", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo"]
)
def test_recv_request_fast_gives_nothing_when_the_client_has_closed(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client], data: bytes
) -> None:
    ours, client = pair
    worker = make()
    client.send(data)
    client.close()
    assert worker._recv_request_fast(ours) == (None, b"")


def test_recv_request_fast_answers_an_error_and_gives_nothing(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    worker = make()
    client.send(b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n")
    assert worker._recv_request_fast(ours) == (None, b"")
    assert client.answer().status == 400


def test_the_date_header_is_made_at_most_once_a_second(
    make: Callable[..., SyncWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make()
    before = time.time()
    first = worker._cached_date_header()
    expected = {f"Date: {imf_fixdate(moment)}\r\n".encode() for moment in (before, time.time())}
    assert first in expected
    if int(time.time()) == int(before):
        assert worker._cached_date_header() is first or int(time.time()) != int(before)
    until(lambda: worker._cached_date_header() != first, 2.5)


def test_send_error_is_a_whole_answer_in_plain_text(
    make: Callable[..., SyncWorker], pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    worker = make()
    worker._send_error(ours, 413, "Too much")
    answer = client.answer()
    assert (answer.status, answer.body) == (413, b"Too much\n")
    assert answer.header("connection") == "close"
    assert answer.header("content-length") == "9"
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert client.closed()


def classify(fields: str = "", version: str = "1.1", method: str = "GET") -> _RequestMeta:
    head = f"{method} / HTTP/{version}\r\nHost: x{fields}".encode("latin-1")
    return _classify_request(RequestParser(Limits()).parse(head))


def test_a_new_meta_says_nothing() -> None:
    meta = _RequestMeta()
    assert (meta.close, meta.upgrade, meta.websocket, meta.accept_encoding) == (
        False,
        "",
        False,
        "",
    )


@pytest.mark.parametrize(
    ("fields", "version", "close"),
    [
        ("", "1.1", False),
        ("", "1.0", True),
        ("\r\nConnection: close", "1.1", True),
        ("\r\nConnection: Close", "1.1", True),
        ("\r\nConnection: keep-alive", "1.1", False),
        ("\r\nConnection: keep-alive", "1.0", False),
        ("\r\nConnection: keep-alive, close", "1.1", True),
        ("\r\nConnection: keep-alive\r\nConnection: close", "1.1", True),
        ("\r\nConnection: closed", "1.1", False),
        ("\r\nConnection: keep-alive, close", "1.0", True),
    ],
)
def test_classify_close(fields: str, version: str, close: bool) -> None:
    assert classify(fields, version).close is close


@pytest.mark.parametrize(
    ("fields", "version", "method", "upgrade", "websocket"),
    [
        ("\r\nConnection: Upgrade\r\nUpgrade: WebSocket", "1.1", "GET", "websocket", True),
        ("\r\nConnection: x, upgrade\r\nUpgrade: websocket", "1.1", "GET", "websocket", True),
        ("\r\nConnection: upgrade\r\nUpgrade: h2c", "1.1", "GET", "h2c", False),
        ("\r\nConnection: upgrade\r\nUpgrade: websocket", "1.0", "GET", "", False),
        ("\r\nConnection: upgrade\r\nUpgrade: websocket", "1.1", "POST", "websocket", False),
        ("\r\nUpgrade: websocket", "1.1", "GET", "", False),
        ("\r\nConnection: upgrade", "1.1", "GET", "", False),
    ],
)
def test_classify_upgrade(
    fields: str, version: str, method: str, upgrade: str, websocket: bool
) -> None:
    meta = classify(fields, version, method)
    assert (meta.upgrade, meta.websocket) == (upgrade, websocket)


def test_classify_accept_encoding() -> None:
    assert classify("\r\nAccept-Encoding: gzip, br").accept_encoding == "gzip, br"
    assert (
        classify("\r\nAccept-Encoding: gzip\r\nAccept-Encoding: br").accept_encoding == "gzip, br"
    )
    assert classify().accept_encoding == ""
