"""The corpus in `wire/`, against a real server and at every split; and the connection's own rules.

A corpus file is Latin-1 text. Real line ends mean nothing; escapes are `\\r`, `\\n`, `\\t`, `\\\\`,
`\\xHH`, and `\\12{text}` for text twelve times, escapes included. Leading lines with `# ` are
comments; the first of an invalid file is the status that must be answered. Beside a valid file
stands what the application must see, as JSON: fields that are not named are not compared.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import pytest

from threadwell import Request, Response, ServerConfig, SyncWorker, ThreadedServer
from threadwell.worker.connection import Connection

from .waiting import no_hurry
from .wire_client import Answer, Client

_WIRE = Path(__file__).parent / "wire"
_VALID = sorted((_WIRE / "valid").glob("*.http"))
_INVALID = sorted((_WIRE / "invalid").glob("*.http"))

_ESCAPE = re.compile(rb"\\(?:([rnt\\])|x([0-9a-f]{2})|([0-9]+)\{([^}]*)\})")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}

FIRST = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

# Above this, sending a byte at a time and splitting everywhere is not worth its time.
_SHORT = 400


def corpus(path: Path) -> tuple[list[str], bytes]:
    """The comments and the octets of a corpus file."""
    lines = path.read_bytes().split(b"\n")
    comments = []
    while lines[0].startswith(b"# "):
        comments.append(lines.pop(0)[2:].decode())
    return comments, _unescaped(b"".join(lines))


def _unescaped(text: bytes) -> bytes:
    def octets(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return _PLAIN[match[1]]
        return (
            bytes.fromhex(match[2].decode()) if match[2] else _unescaped(match[4]) * int(match[3])
        )

    return _ESCAPE.sub(octets, text)


def _ids(path: Path) -> str:
    return path.stem


valid_files = pytest.mark.parametrize("path", _VALID, ids=_ids)
invalid_files = pytest.mark.parametrize("path", _INVALID, ids=_ids)


class Recorder:
    """A `SyncApp` that remembers the requests that it saw, and echoes method and target."""

    def __init__(self) -> None:
        self.seen: list[tuple[Request, bytes]] = []

    def __call__(self, request: Request) -> Response:
        self.seen.append((request, request.read()))
        return Response(200, [("X-Echo", "yes")], f"{request.method} {request.target}".encode())

    def targets(self) -> list[str]:
        return [request.target for request, _ in self.seen]


def expected(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The requests that must be seen, and whether the connection is closed after them."""
    data = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return data["requests"], data["closes"]


def check_seen(seen: list[tuple[Request, bytes]], requests: list[dict[str, Any]]) -> None:
    assert len(seen) == len(requests)
    for (request, body), wanted in zip(seen, requests, strict=True):
        for name in ("method", "target", "path", "query", "version"):
            if name in wanted:
                assert getattr(request, name) == wanted[name]
        if "path_info" in wanted:
            assert unquote_to_bytes(request.path).decode("latin-1") == wanted["path_info"]
        for name, value in wanted.get("headers", {}).items():
            assert request.header(name) == value
        if "body" in wanted:
            assert body.decode("latin-1") == wanted["body"]


def final_answer(client: Client, method: str = "GET") -> Answer:
    while True:
        answer = client.answer(method)
        if answer.status >= 200:
            return answer


def check_echoes(client: Client, seen: list[tuple[Request, bytes]]) -> None:
    for request, _ in seen:
        answer = final_answer(client, request.method)
        assert answer.status == 200
        if request.method != "HEAD":
            assert answer.body.decode() == f"{request.method} {request.target}"


def send_dribbling(client: Client, data: bytes) -> None:
    """Byte by byte, or in odd pieces when there are many; a refusal may come before the end."""
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size = 1 if len(data) <= _SHORT else 97
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(data), size):
            client.send(data[at : at + size])


# ---- A real server -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording() -> Iterator[tuple[ThreadedServer, Recorder]]:
    app = Recorder()
    with ThreadedServer(app, bind="127.0.0.1:0", threads=2, graceful_timeout=2) as server:
        yield server, app


@pytest.fixture
def open_client(
    recording: tuple[ThreadedServer, Recorder], connect: Callable[..., Client]
) -> Callable[[], tuple[Client, Recorder]]:
    server, app = recording

    def open_one() -> tuple[Client, Recorder]:
        app.seen.clear()
        return connect(server, timeout=5), app

    return open_one


@valid_files
@pytest.mark.parametrize("send", [Client.send, send_dribbling], ids=["whole", "dribbling"])
def test_valid(
    path: Path,
    send: Callable[[Client, bytes], None],
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    requests, closes = expected(path)
    send(client, corpus(path)[1])
    for wanted in requests:
        assert final_answer(client, wanted.get("method", "GET")).status == 200
    check_seen(app.seen, requests)
    if not closes:
        client.send(LAST)
        assert client.answer().body == b"GET /last"
        client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@valid_files
def test_valid_pipelined(path: Path, open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, app = open_client()
    requests, closes = expected(path)
    client.send(FIRST + corpus(path)[1] + LAST)
    requests = [{"target": "/first"}, *requests, *([] if closes else [{"target": "/last"}])]
    for wanted in requests:
        assert final_answer(client, wanted.get("method", "GET")).status == 200
    check_seen(app.seen, requests)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@invalid_files
@pytest.mark.parametrize("send", [Client.send, send_dribbling], ids=["whole", "dribbling"])
def test_invalid(
    path: Path,
    send: Callable[[Client, bytes], None],
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    comments, data = corpus(path)
    send(client, data + SMUGGLED)
    answer = final_answer(client)
    assert answer.status == int(comments[0])
    assert answer.header("connection") == "close"
    assert client.closed()
    assert not app.targets()


@invalid_files
def test_invalid_pipelined(path: Path, open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, app = open_client()
    comments, data = corpus(path)
    client.send(FIRST + data + SMUGGLED)
    assert client.answer().body == b"GET /first"
    assert final_answer(client).status == int(comments[0])
    assert client.closed()
    assert app.targets() == ["/first"]


@pytest.mark.parametrize("path", [p for p in _INVALID if "_lf_" in p.name], ids=_ids)
def test_bare_lf_needs_no_more_input_to_be_refused(
    path: Path, open_client: Callable[[], tuple[Client, Recorder]]
) -> None:
    client, app = open_client()
    client.send(corpus(path)[1])
    assert client.answer().status == 400
    assert client.closed()
    assert not app.seen


def test_corpus_is_large() -> None:
    assert len(_INVALID) >= 74
    assert len(_VALID) >= 63


# ---- Every split ---------------------------------------------------------------------------


class ScriptedSocket:
    """A connection whose octets come in the pieces given, with a wait between, and then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        # something that a poller can wait for: it is always readable and always writable
        self._real, peer = socket.socketpair()
        peer.close()
        self._pieces: list[bytes | None] = []
        for piece in pieces:
            self._pieces += [piece, None]
        self.sent = b""
        self.closed = False

    def fileno(self) -> int:
        return self._real.fileno()

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if piece is None:
            raise BlockingIOError
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def send(self, data: bytes, flags: int = 0) -> int:
        del flags
        self.sent += data
        return len(data)

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        self._real.close()


class Replay:
    """As much of a socket as reading answers needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, size: int) -> bytes:
        del size
        data, self._data = self._data, b""
        return data


class Bench:
    """A worker that is driven by hand: no thread, no clock, no network."""

    def __init__(self, **options: Any) -> None:
        self.app = Recorder()
        config = ServerConfig.from_options(**options)
        self._worker = SyncWorker(config, self.app, None)

    def run(self, *pieces: bytes) -> Client:
        """Serve the connection to its end; the answers are read from the client returned."""
        self.app.seen.clear()
        sock = ScriptedSocket([piece for piece in pieces if piece])
        poller = self._worker.poller
        with contextlib.closing(sock):
            connection = Connection(cast("socket.socket", sock), ("::1", 1), ("::1", 80))
            poller.connections.add(connection)
            self._worker._handle_connection(connection, connection.client, None)
            while not sock.closed:
                ready = poller.wait(1)
                assert ready is connection, "the connection waits for nothing"
                self._worker._handle_connection(connection, connection.client, None)
        return Client(cast("socket.socket", Replay(sock.sent)))

    def close(self) -> None:
        self._worker.poller.close()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with contextlib.closing(Bench()) as made:
        yield made


def splits(data: bytes) -> list[int]:
    """Every offset; of long data those at both ends, at line ends, and some between."""
    size = len(data)
    if size <= _SHORT:
        return list(range(1, size))
    ends = [match.end() for match in re.finditer(rb"\r\n", data)][:10]
    chosen = {*range(1, 20), *range(size - 20, size), *range(20, size, size // 12)}
    chosen.update(end + off for end in ends for off in (-2, -1, 0, 1))
    chosen.update(limit + off for limit in (8190, 65536) for off in range(-2, 4))
    return sorted(at for at in chosen if 0 < at < size)


@valid_files
def test_valid_split_anywhere(path: Path, bench: Bench) -> None:
    data = corpus(path)[1]
    requests, _ = expected(path)
    for at in splits(data):
        client = bench.run(data[:at], data[at:])
        check_seen(bench.app.seen, requests)
        check_echoes(client, bench.app.seen)
        assert client.closed()


@invalid_files
def test_invalid_split_anywhere(path: Path, bench: Bench) -> None:
    comments, data = corpus(path)
    data += SMUGGLED
    for at in splits(data):
        client = bench.run(data[:at], data[at:])
        assert final_answer(client).status == int(comments[0]), at
        assert client.closed()
        assert not bench.app.seen


@pytest.mark.parametrize("path", [p for p in _INVALID if "_lf_" in p.name], ids=_ids)
def test_bare_lf_split_anywhere_needs_no_more_input(path: Path, bench: Bench) -> None:
    data = corpus(path)[1]
    for at in splits(data):
        assert bench.run(data[:at], data[at:]).answer().status == 400, at


def test_two_requests_split_anywhere_and_in_three(bench: Bench) -> None:
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    data = post + FIRST
    for at in range(1, len(data)):
        for further in range(at + 1, len(data), 7):
            client = bench.run(data[:at], data[at:further], data[further:])
            check_seen(bench.app.seen, [{"target": "/p", "body": "hello"}, {"target": "/first"}])
            check_echoes(client, bench.app.seen)


def test_a_stream_a_byte_at_a_time(bench: Bench) -> None:
    chunked = (
        b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    )
    data = FIRST + chunked + LAST
    client = bench.run(*[data[at : at + 1] for at in range(len(data))])
    check_seen(
        bench.app.seen, [{"target": "/first"}, {"target": "/c", "body": "hi"}, {"target": "/last"}]
    )
    check_echoes(client, bench.app.seen)


def test_an_empty_line_behind_each_of_many_requests(bench: Bench) -> None:
    """Old clients send CRLF behind a body. It counts for one request, not for the connection."""
    pieces = [FIRST + b"\r\n", *[FIRST, b"\r\n"] * 20]
    client = bench.run(*pieces)
    assert len(bench.app.seen) == 21
    check_echoes(client, bench.app.seen)
    assert client.closed()


def test_end_of_input_in_a_head_reaches_nobody(bench: Bench) -> None:
    for at in range(1, len(FIRST)):
        assert bench.run(FIRST[:at]).closed()
        assert not bench.app.seen


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
    ],
)
def test_end_of_input_in_a_body_reaches_nobody(body: bytes, bench: Bench) -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\n" + body
    for at in range(1, len(data)):
        assert bench.run(data[:at]).closed()
        assert not bench.app.seen
    bench.run(data)
    assert [seen for _, seen in bench.app.seen] == [b"hello"]


# ---- Pipelines, half-closed and closed connections -------------------------------------------


def test_a_hundred_pipelined_in_order(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    targets = [f"/{number}" for number in range(100)]
    client.send(
        b"".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for target in targets)
    )
    assert [client.answer().body for _ in targets] == [f"GET {t}".encode() for t in targets]
    assert app.targets() == targets


def test_half_closed_after_the_request(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, _ = open_client()
    client.send(FIRST + LAST)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.answer().body == b"GET /first"
    assert client.answer().body == b"GET /last"
    assert client.closed()


def test_half_closed_while_the_application_works(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    called, go_on = threading.Event(), threading.Event()

    def app(request: Request) -> Response:
        called.set()
        assert go_on.wait(5)
        return Response(200, (), request.read())

    client = connect(serve(app))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    assert called.wait(5)
    client.sock.shutdown(socket.SHUT_WR)
    go_on.set()
    assert client.answer().body == b"hello"
    assert client.closed()


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 6\r\n\r\nhello",
        b"Content-Length: 300000\r\n\r\n" + b"x" * 290000,
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_cut_body_reaches_nobody(
    data: bytes, open_client: Callable[[], tuple[Client, Recorder]]
) -> None:
    client, app = open_client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + data)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()
    assert not app.seen


# ---- Bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", range(14, 20))
def test_a_body_that_ends_with_a_turn_is_not_forgotten(
    pieces: int, serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    """A thread reads a connection so and so often in a turn; the last it read counts too."""
    busy, go_on = threading.Event(), threading.Event()

    def app(request: Request) -> Response:
        if request.target == "/busy":
            busy.set()
            assert go_on.wait(10)
        return Response(200, (), str(len(request.read())).encode())

    server = serve(app, threads=1, head_timeout=30)
    first, second = connect(server), connect(server)
    size = pieces * 65536
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %07d\r\n\r\n"
    length = size - len(head % 0)
    first.send(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert busy.wait(5)
    # all of it is there when the one thread comes to it
    sender = threading.Thread(target=second.send, args=(head % length + b"x" * length,))
    sender.start()
    sender.join(0.5)
    go_on.set()
    assert first.answer().body == b"0"
    assert second.answer().body == str(length).encode()
    sender.join()


@pytest.mark.parametrize("pieces", range(1, 40))
def test_a_body_in_many_pieces(pieces: int, bench: Bench) -> None:
    body = bytes(range(64)) * pieces
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    bench.run(head, *[body[at : at + 64] for at in range(0, len(body), 64)])
    assert [seen for _, seen in bench.app.seen] == [body]


# ---- 100-continue --------------------------------------------------------------------------

_EXPECTING = b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_continue_before_the_body(
    framing: bytes, body: bytes, open_client: Callable[[], tuple[Client, Recorder]]
) -> None:
    client, app = open_client()
    for _ in range(2):
        client.send(_EXPECTING + framing + b"\r\n")
        interim = client.answer()
        assert interim.status == 100
        assert not interim.headers
        client.send(body)
        assert client.answer().body == b"POST /e"
    assert [seen for _, seen in app.seen] == [b"hello", b"hello"]


def test_continue_once_when_the_body_dribbles(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, _ = open_client()
    client.send(_EXPECTING + b"Content-Length: 5\r\n\r\n")
    assert client.answer().status == 100
    send_dribbling(client, b"hello")
    assert client.answer().status == 200


@pytest.mark.parametrize("body", [b"", b"hello world"])
def test_no_continue_for_a_body_that_is_refused(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client], body: bytes
) -> None:
    app = Recorder()
    client = connect(serve(app, limit_body=10))
    client.send(_EXPECTING + b"Content-Length: 11\r\n\r\n" + body)
    assert client.answer().status == 413
    assert client.closed()
    assert not app.seen


def test_no_continue_to_http_1_0(open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, app = open_client()
    client.send(b"POST /e HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    client.send(b"hello")
    assert client.answer().status == 200
    assert client.closed()
    assert [seen for _, seen in app.seen] == [b"hello"]


def test_a_client_that_does_not_wait_for_continue(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    client.send(_EXPECTING + b"Content-Length: 5\r\n\r\nhello" + LAST)
    assert final_answer(client).body == b"POST /e"
    assert client.answer().body == b"GET /last"
    assert app.targets() == ["/e", "/last"]


def test_no_continue_without_a_body(open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, _ = open_client()
    for field in (b"", b"Content-Length: 0\r\n"):
        client.send(_EXPECTING + field + b"\r\n")
        assert client.answer().status == 200


# ---- Refusals arrive -----------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False])
def test_a_refusal_reaches_a_client_that_still_sends(
    declared: bool, serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    client = connect(serve(Recorder(), limit_body=100_000, linger_timeout=30))
    size = 6 * 1024 * 1024
    if declared:
        head, body = b"Content-Length: %d\r\n\r\n" % size, b"x" * size
    else:
        head, body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size, b"x" * size
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + body)
    received = b""
    while data := client.sock.recv(65536):  # a reset would raise
        received += data
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"\r\n\r\nThe request body is too large\n" in received


def test_a_refusal_ends_with_the_end_of_the_line(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    """The server says at once that this was all, though it lingers for what still comes."""
    client, _ = open_client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    started = time.monotonic()
    assert client.answer().status == 400
    assert client.closed()
    assert time.monotonic() - started < 1


# ---- Deadlines -----------------------------------------------------------------------------


def _dribble_until_answered(client: Client, data: bytes) -> None:
    """Send a byte now and then until something comes back."""
    client.sock.settimeout(0.05)
    for at in range(len(data)):
        client.send(data[at : at + 1])
        try:
            client.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        break
    client.sock.settimeout(5)


def test_a_slow_head(serve: Callable[..., ThreadedServer], connect: Callable[..., Client]) -> None:
    app = Recorder()
    server = serve(app, head_timeout=0.5)
    with no_hurry(server):
        client = connect(server)
        started = time.monotonic()
        client.send(b"G")
    _dribble_until_answered(client, b"ET / HTTP/1.1\r\nX-A: " + b"a" * 500)
    assert 0.5 <= time.monotonic() - started < 4
    assert client.answer().status == 408
    assert client.closed()
    assert not app.seen


def test_a_slow_second_head_has_its_own_time(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    server = serve(Recorder(), head_timeout=1)
    with no_hurry(server):  # the time of another head would be found over when this one begins
        client = connect(server)
        for _ in range(5):
            client.send(FIRST[:20])
            with contextlib.suppress(TimeoutError):
                client.sock.settimeout(0.3)
                client.sock.recv(1, socket.MSG_PEEK)
            client.sock.settimeout(5)
            client.send(FIRST[20:])
            assert client.answer().status == 200


def test_a_silent_new_connection(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    assert connect(serve(Recorder(), head_timeout=0.3)).closed()


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 900\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n384\r\n"],
)
def test_a_slow_body(
    framing: bytes, serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    app = Recorder()
    client = connect(serve(app, body_timeout=0.5, min_rate=1000))
    started = time.monotonic()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing)
    _dribble_until_answered(client, b"x" * 500)
    assert 0.4 <= time.monotonic() - started < 4
    assert client.answer().status == 408
    assert client.closed()
    assert not app.seen


def test_an_idle_connection_is_closed_silently(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    client = connect(serve(Recorder(), keep_alive=0.3))
    asked = time.monotonic()  # the server's time runs when it answers, whenever that is read
    assert client.get().status == 200
    started = time.monotonic()
    assert client.closed()
    assert time.monotonic() - asked >= 0.2
    assert time.monotonic() - started < 4


def test_an_idle_connection_is_closed_after_a_large_answer_too(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    """The time for the answer is not what the next request has."""
    size = 8 * 1024 * 1024
    client = connect(serve(lambda request: Response(200, (), b"x" * size), keep_alive=0.3))
    assert len(client.get().body) == size
    started = time.monotonic()
    assert client.closed()
    assert time.monotonic() - started < 4
