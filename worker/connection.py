"""One connection: its state, its buffers, its deadline.

Rule: everything that decides which thread may touch a connection is here, in `State` and
`TRANSITIONS`. A connection has one owner at a time. In the states of `WAITING` the owner is the
poller; in `SERVING` and `STREAMING` the thread that took the connection; in `HIJACKED` the
application; in `ADOPTED` the asyncio side. `Poller.park` gives ownership away and `Poller.wait`
receives it. Nothing else does.

A connection does not know the packages that work on it. What it holds for them is typed by the
protocols below: `RequestHost`, `PendingBody`, `PendingOutput`.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, final

from .errors import ClientDisconnected
from .messages import Address, Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hijack import HijackedSocket
    from .lifecycle import ResponseCompleted
    from .messages import HeaderList, Request, RequestReceived, Response
    from .tls.session import TLSSocket


class State(Enum):
    """The state of a connection, from accept to close."""

    __hash__ = object.__hash__  # Enum hashes the name, in Python code; members are unique anyway

    PROXY_HEADER = "proxy_header"  # the PROXY header has not arrived in full
    HANDSHAKE = "handshake"  # the TLS handshake is not complete
    IDLE = "idle"  # no octet of the next request has arrived
    HEAD = "head"  # a part of a head has arrived
    BODY = "body"  # the head and a part of the body have arrived
    SERVING = "serving"  # a thread reads, runs the application, or sends
    STREAMING = "streaming"  # a lent thread runs a long response
    WRITING = "writing"  # the client has to read before the rest of an answer can be sent
    YIELDED = "yielded"  # whole requests have arrived; other connections go first
    LINGERING = "lingering"  # the last answer is sent; further input is discarded
    HIJACKED = "hijacked"  # the application has the socket
    ADOPTED = "adopted"  # the asyncio side has the connection
    CLOSED = "closed"


_WAITING = (
    State.PROXY_HEADER,
    State.HANDSHAKE,
    State.IDLE,
    State.HEAD,
    State.BODY,
    State.WRITING,
    State.YIELDED,
    State.LINGERING,
)

#: From each state, the states that may follow. docs/architecture.md draws this table.
TRANSITIONS: dict[State, frozenset[State]] = {
    **{state: frozenset({State.SERVING, State.CLOSED}) for state in _WAITING},
    State.SERVING: frozenset(
        {*_WAITING, State.STREAMING, State.HIJACKED, State.ADOPTED, State.CLOSED}
    ),
    State.STREAMING: frozenset({State.SERVING, State.CLOSED}),
    State.HIJACKED: frozenset({State.CLOSED}),
    State.ADOPTED: frozenset({State.IDLE, State.YIELDED, State.CLOSED}),
    State.CLOSED: frozenset(),
}

# The notes of a connection that no thread has served yet.
_NO_NOTES: dict[Any, Any] = {}

#: The states in which the poller owns a connection.
WAITING = frozenset(_WAITING)

#: The waiting states in which the poller looks for room to send; in the others, for input.
FOR_OUTPUT = frozenset({State.WRITING, State.YIELDED})


# `struct tcp_info` of Linux, as far as it is read here.
_TCP_INFO = 56
_LAST_DATA_RECEIVED = 52
_TCP, _INFO = socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", None)
_last_data_received = struct.Struct("I").unpack_from
_NO_TIME = bytes(_TCP_INFO - _LAST_DATA_RECEIVED)


class IllegalTransition(RuntimeError):
    """A connection was moved to a state that cannot follow its own: a bug of threadwell."""


class ResponsePath(Enum):
    """How the answer to the request under way leaves."""

    __hash__ = object.__hash__  # see `State`

    DIRECT = "direct"  # one send, and nothing else is to be done
    RECORDED = "recorded"  # one send, and a lifecycle collector is to be told
    OTHER = "other"  # a stream, a file, a hijacked socket, a failure, or a rest to be sent later


# Global names are found more quickly than members of an Enum.
_CLOSED, _DIRECT = State.CLOSED, ResponsePath.DIRECT


class RequestHost(Protocol):
    """The serving thread of a request: what the application asks of its connection ends there."""

    def open_stream(
        self, conn: Connection, request: Request, response: Response
    ) -> PushedResponse: ...

    def inform(
        self, conn: Connection, request: Request, status: int, headers: HeaderList
    ) -> None: ...

    def hijack(self, conn: Connection, request: Request) -> HijackedSocket: ...

    def adopt_back(self, conn: Connection, let_go: Callable[[], object]) -> bool: ...


class PushedResponse(Protocol):
    """A response whose body is still being made, such as `http1.writer.StreamWriter`."""

    @property
    def headers_sent(self) -> bool: ...

    @property
    def allowed(self) -> float | int: ...

    @property
    def sent(self) -> int: ...

    def write(self, block: bytes) -> None: ...

    def finish(self) -> None: ...


class RequestSource(Protocol):
    """Where a request comes from: a `Connection`, or one of the streams that share it."""

    @property
    def sock(self) -> socket.socket | TLSSocket: ...

    @property
    def peer(self) -> Address: ...

    @property
    def encrypted(self) -> bool: ...

    origin: Origin
    direct: Origin | None


class PendingBody(Protocol):
    """A request body that has not arrived in full: see `http1.request_body.BodyReceiver`."""

    size: int
    rest: bytes

    @property
    def deadline(self) -> float: ...

    def feed(self, data: bytes) -> bool: ...

    def finish(self) -> bytes | BinaryIO: ...

    def close(self) -> None: ...


class PendingOutput(Protocol):
    """What the kernel has not taken of an answer: see `http1.send_buffer.SendBuffer`."""

    persistent: bool

    @property
    def deadline(self) -> float: ...

    def append(self, data: bytes) -> None: ...

    def flush(self, connection: Connection) -> bool: ...

    def close(self) -> None: ...


class PendingHead(Protocol):
    """A head that has not arrived in full: see `http1.head_buffer.HeadBuffer`."""

    def __len__(self) -> int: ...

    def began_handshake(self) -> bool: ...


@final
class Connection:
    """A client's connection. Only its owner touches it; so there is no lock."""

    __slots__ = (
        # of the connection
        "abandoned",
        "blocking",
        "deadline",
        "encrypted",
        "fd",
        "peer",
        "proxy_header",
        "recv",
        "registered",
        "requests",
        "send",
        "sock",
        "state",
        "unbounded",
        "wants_write",
        # of the requests: for whom they come
        "direct",
        "origin",
        # of the input
        "body",
        "buffer",
        "continued",
        "head",
        "head_buffer",
        "head_deadline",
        "known_head",
        "known_raw_head",
        "repeated",
        "repeated_head",
        # of the answer
        "hijacked",
        "linger",
        "persistent",
        "record",
        "request_id",
        "response_path",
        "send_buffer",
        "started",
        "stream_writer",
        # of the thread that serves it
        "notes",
        "worker",
    )

    #: The address at the other end of the socket.
    peer: Address
    #: The client of the current request. A trusted proxy may have said it.
    origin: Origin
    #: The same for the connection itself, where proxies are trusted.
    direct: Origin | None
    #: Octets go through TLS, whatever a proxy says of the scheme.
    encrypted: bool
    #: A part of the PROXY header: the state of `proxies.proxy_header`.
    proxy_header: object
    #: When the wait ends, in the seconds of `time.monotonic`.
    deadline: float
    #: The poller's own mark: whether the kernel knows the descriptor.
    registered: bool
    #: TLS may have to write in order to read. The poller then waits for room to send.
    wants_write: bool
    #: The socket belongs to the application for good; `close` leaves it open.
    abandoned: bool
    #: The socket blocks: the thread that serves it reads on instead of parking it.
    blocking: bool
    #: A WebSocket or an event stream: it has no end that a server which stops could wait for.
    unbounded: bool
    #: What the client still sends must be read before the connection is closed.
    linger: bool
    #: What has been received and not yet parsed.
    buffer: bytes
    #: A head that arrives in pieces: the state of `http1.head_buffer`.
    head_buffer: PendingHead | None
    #: When the head that has begun to arrive must be whole; 0 where none has begun.
    head_deadline: float
    #: The octets of the last request, if it had no body, and the head that they made.
    repeated: bytes | None
    repeated_head: RequestReceived | None
    #: The last head behind which more had come, such as a body, and its octets.
    known_raw_head: bytes
    known_head: RequestReceived | None
    #: The head whose body is arriving.
    head: RequestReceived | None
    body: PendingBody | None
    #: The client was told to send its body, or need not be told.
    continued: bool
    #: What the kernel has not taken of an answer.
    send_buffer: PendingOutput | None
    response_path: ResponsePath
    #: Whether the connection may carry another request after this answer.
    persistent: bool
    #: The thread that runs the request, for what the application asks of it.
    worker: RequestHost | None
    notes: dict[Any, Any]
    stream_writer: PushedResponse | None
    hijacked: HijackedSocket | None
    #: The id of the request under way, where requests have ids.
    request_id: str
    #: What a lifecycle collector is told when the answer is out; None without a collector.
    record: ResponseCompleted | None
    #: When the request had arrived, in the seconds of `time.monotonic`, for the `record` that will
    #: be made if one is needed; 0 where none is.
    started: float

    def __init__(
        self,
        sock: socket.socket | TLSSocket,
        client: Address,
        server: Address,
        *,
        scheme: str = "http",
        state: State = State.SERVING,
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recv = sock.recv
        self.send = sock.send
        self.peer = client
        # quicker than `str`
        self.origin = Origin(client, f"{client[1]}", server, scheme, "", False)
        self.direct = None
        self.encrypted = scheme == "https"
        self.proxy_header = None
        self.state = state
        self.deadline = 0.0
        self.registered = False
        self.wants_write = False
        self.abandoned = False
        self.requests = 0
        self.blocking = False
        self.unbounded = False
        self.linger = False
        self.buffer = b""
        self.head_buffer = None
        self.head_deadline = 0.0
        self.known_raw_head = b""
        self.known_head = None
        self.repeated = None
        self.repeated_head = None
        self.head = None
        self.body = None
        self.continued = False
        self.send_buffer = None
        self.response_path = _DIRECT
        self.persistent = False
        self.worker = None
        self.notes = _NO_NOTES
        self.stream_writer = None
        self.hijacked = None
        self.request_id = ""
        self.record = None
        self.started = 0.0

    def become(self, state: State) -> None:
        """Move to `state`. Raises `IllegalTransition` where the table has no such step."""
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self.state.value} -> {state.value}")
        self.state = state

    @property
    def is_trusted(self) -> bool:
        """Whether the connection comes from a trusted proxy."""
        return self.direct is not None and self.direct.trusted

    def reset_origin(self) -> None:
        """Forget what the last request said of its origin: the connection's own holds."""
        if self.direct is not None:
            self.origin = self.direct

    def close(self) -> None:
        """End the connection and free what belongs to it. The owner calls it, once."""
        if self.state is _CLOSED:
            raise IllegalTransition("closed -> closed")
        self.state = _CLOSED  # any other may end so
        self.buffer = b""
        if self.body is not None:
            self.body.close()
            self.body = None
        if self.send_buffer is not None:
            self.send_buffer.close()
            self.send_buffer = None
        if self.abandoned:
            return
        try:
            self.sock.close()
        except OSError:  # a reset that came in meanwhile; the descriptor is gone either way
            pass

    # ---- `messages.Channel`: what the application asks of its connection -------------------

    @property
    def client(self) -> Address:
        """The client of the current request."""
        return self.origin.client

    @property
    def server(self) -> Address:
        """Where the request under way was sent to."""
        return self.origin.server

    @property
    def scheme(self) -> str:
        """`http` or `https`, as the client sees it."""
        return self.origin.scheme

    @property
    def prefix(self) -> str:
        """What a trusted proxy has cut from the beginning of the path."""
        return self.origin.prefix

    @property
    def headers_sent(self) -> bool:
        return self.stream_writer is not None and self.stream_writer.headers_sent

    @property
    def tls(self) -> dict[str, str]:
        # a socket that the application has detached from its TLS session has no facts left
        return {} if isinstance(self.sock, socket.socket) else self.sock.variables()

    def stream(self, request: Request, response: Response) -> PushedResponse:
        return self._host().open_stream(self, request, response)

    def waited(self) -> float | None:
        """Seconds since the last octets arrived; None where the system does not say.

        The kernel's clock has steps of a few milliseconds.
        """
        if _INFO is None:
            return None
        try:
            data = self.sock.getsockopt(_TCP, _INFO, _TCP_INFO)
        except OSError:  # not of TCP
            return None
        if data.endswith(_NO_TIME):  # mostly so, and quicker
            return 0.0
        milliseconds: int = _last_data_received(data, _LAST_DATA_RECEIVED)[0]
        return milliseconds / 1000

    def request_age(self) -> float:
        """For how many seconds the request under way has run at least. Any thread may call.

        The kernel says how long ago the last octets came, which may be those of the next request.
        """
        try:
            return self.waited() or 0.0
        except (OSError, ValueError):  # closed meanwhile
            return 0.0

    def inform(self, request: Request, status: int, headers: HeaderList) -> None:
        self._host().inform(self, request, status, headers)

    def hijack(self, request: Request) -> HijackedSocket:
        return self._host().hijack(self, request)

    def _host(self) -> RequestHost:
        if self.worker is None:
            raise RuntimeError("the request is over")
        return self.worker

    # ---- Sending and ending ----------------------------------------------------------------

    def abort_with_reset(self) -> None:
        """Make `close` send a reset, so that the client sees that the response is incomplete."""
        if isinstance(self.sock, socket.socket):
            reset = struct.pack("ii", 1, 0)  # on, and no time for it: see socket(7) on SO_LINGER
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        else:
            self.sock.truncated = True

    def abandon(self) -> None:
        """Leave the socket open at `close`: the application has taken it for good."""
        self.abandoned = True

    def disconnect(self) -> None:
        """Shut the socket down. Any thread may call: the owner sees an end of input, or a broken
        pipe."""
        if self.abandoned:
            return
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def send_from(self, view: bytes | memoryview) -> int:
        """Return how much of `view` the kernel took, 0 when it is full.

        Raises `ClientDisconnected`.
        """
        try:
            return self.send(view)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientDisconnected(str(error)) from error
