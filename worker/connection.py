"""One connection: its state, its buffers, its deadline.

Rule: whatever decides who may touch a connection lives here, in `State` and `TRANSITIONS`. A
connection has one owner at a time. In the states of `WAITING` the poller owns it; in `SERVING`
and `STREAMING` the thread that took it; in `HIJACKED` the application; in `ADOPTED` the asyncio
side. `Poller.park` gives ownership away and `Poller.wait` receives it: nothing else does.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import TYPE_CHECKING, Any, final

from .errors import ClientDisconnected
from .messages import Address

if TYPE_CHECKING:
    from .hijack import HijackedSocket
    from .http1.request_body import BodyReceiver
    from .http1.send_buffer import SendBuffer
    from .http1.writer import StreamWriter
    from .lifecycle import ResponseCompleted
    from .messages import HeaderList, Origin, Request, RequestReceived, Response
    from .proxies.proxy_protocol import Header
    from .sync_worker import SyncWorker
    from .tls.session import TLSSocket


class State(Enum):
    """Where a connection stands between being accepted and being closed."""

    __hash__ = object.__hash__  # Enum hashes the name, in Python code; members are unique anyway

    PROXY_HEADER = "proxy_header"  # the PROXY header waits for the proxy
    HANDSHAKE = "handshake"  # the TLS handshake waits for the client
    IDLE = "idle"  # no octet of the next request is here
    HEAD = "head"  # a part of a head is here
    BODY = "body"  # the head and a part of the body are here
    SERVING = "serving"  # a thread reads, runs the application, or sends
    STREAMING = "streaming"  # a lent thread runs a long response
    WRITING = "writing"  # the rest of an answer waits for the client to read
    YIELDED = "yielded"  # whole requests are here; others go first
    LINGERING = "lingering"  # the last answer is sent; what still comes is thrown away
    HIJACKED = "hijacked"  # the application has the socket
    ADOPTED = "adopted"  # the asyncio side has it
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

# Until a thread serves the connection, and lends it its own.
_NO_NOTES: dict[Any, Any] = {}

#: The states in which the poller owns a connection.
WAITING = frozenset(_WAITING)

#: The waiting states in which the poller looks for room to send; in the others, for input.
FOR_OUTPUT = frozenset({State.WRITING, State.YIELDED})


# `struct tcp_info` of Linux, as far as it is looked at.
_TCP_INFO = 56
_LAST_DATA_RECEIVED = 52


class IllegalTransition(RuntimeError):
    """A connection was moved to a state that cannot follow its own: a bug of threadwell."""


@final
class Connection:
    """A client's connection. Only its owner touches it; so there is no lock."""

    __slots__ = (
        # of the connection
        "blocking",
        "client",
        "client_port",
        "deadline",
        "direct",
        "encrypted",
        "unbounded",
        "fd",
        "linger",
        "peer",
        "proxy_header",
        "prefix",
        "recv",
        "registered",
        "requests",
        "scheme",
        "send",
        "server",
        "sock",
        "state",
        "usual",
        "wants_write",
        "abandoned",
        # of the input
        "body",
        "buffer",
        "continued",
        "head",
        "head_deadline",
        "pieces",
        "repeated",
        "repeated_head",
        "scanned",
        "skipped",
        # of the answer
        "send_buffer",
        "persistent",
        "record",
        "request_id",
        "stream_writer",
        "hijacked",
        "notes",
        "worker",
    )

    #: Who is at the other end of the socket.
    peer: Address
    #: For whom the request under way comes, and as what: a trusted proxy may say it.
    client: Address
    #: The same for the connection itself, where proxies are trusted.
    direct: Origin | None
    #: Octets go through TLS, whatever a proxy says of the scheme.
    encrypted: bool
    #: A PROXY header that is not whole yet.
    proxy_header: Header | None
    #: When the wait ends, in the seconds of `time.monotonic`.
    deadline: float
    #: The poller's own mark: whether the kernel knows the descriptor.
    registered: bool
    #: TLS may have to write in order to read; the poller then looks for room to send.
    wants_write: bool
    #: The socket is somebody else's now.
    abandoned: bool
    #: The socket blocks: whoever serves it reads on instead of parking it.
    blocking: bool
    #: A WebSocket or an event stream, which a server that stops cannot wait for.
    unbounded: bool
    #: What the client still sends must be read before the connection is closed.
    linger: bool
    #: What has come and is not looked at yet.
    buffer: bytes
    #: A head that arrives in pieces, and how much of it was searched for its end.
    pieces: bytearray | None
    #: The octets of the last request, if it had no body, and what they say.
    repeated: bytes | None
    repeated_head: RequestReceived | None
    #: For the head that has begun to arrive; 0 when none has.
    head_deadline: float
    head: RequestReceived | None
    body: BodyReceiver | None
    #: What the kernel has not taken of an answer.
    send_buffer: SendBuffer | None
    #: Nothing has happened to the answer that is under way but that it was sent; None where that
    #: is so, and a collector is to be told.
    usual: bool | None
    #: Whether the connection may carry another request after this answer.
    persistent: bool
    #: The thread that runs the request, for what the application asks of it.
    worker: SyncWorker | None
    notes: dict[Any, Any]
    stream_writer: StreamWriter | None
    hijacked: HijackedSocket | None
    #: Of the request under way, where requests have ids.
    request_id: str
    #: What a lifecycle collector will be told when the answer is out; else None.
    record: ResponseCompleted | None

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
        self.client = client
        self.client_port = str(client[1])
        self.server = server
        self.scheme = scheme
        self.prefix = ""
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
        self.pieces = None
        self.scanned = 0
        self.skipped = 0
        self.repeated = None
        self.repeated_head = None
        self.head_deadline = 0.0
        self.head = None
        self.body = None
        self.continued = False
        self.send_buffer = None
        self.usual = True
        self.persistent = False
        self.worker = None
        self.notes = _NO_NOTES
        self.stream_writer = None
        self.hijacked = None
        self.request_id = ""
        self.record = None

    def become(self, state: State) -> None:
        """Move to `state`. Raises `IllegalTransition` where the table has no such step."""
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self.state.value} -> {state.value}")
        self.state = state

    def represent(self, origin: Origin) -> None:
        """Come from `origin`, for the request under way."""
        self.client, self.client_port, self.server, self.scheme, self.prefix, _ = origin

    def represent_itself(self) -> None:
        """Come from where the connection comes from: no request says anything else."""
        if self.direct is not None:
            self.represent(self.direct)

    def close(self) -> None:
        """End the connection and let go of all that belongs to it. The owner calls it, once."""
        self.become(State.CLOSED)
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
    def headers_sent(self) -> bool:
        return self.stream_writer is not None and self.stream_writer.headers_sent

    @property
    def tls(self) -> dict[str, str]:
        # nothing of TLS is left of a socket that the application has taken away
        return {} if isinstance(self.sock, socket.socket) else self.sock.facts()

    def stream(self, request: Request, response: Response) -> StreamWriter:
        return self._server().open_stream(self, request, response)

    def waited(self) -> float | None:
        """Seconds since its last octets have come, in steps of the kernel's clock of a few
        milliseconds; None where the system does not say."""
        info = getattr(socket, "TCP_INFO", None)
        if info is None:
            return None
        try:
            data = self.sock.getsockopt(socket.IPPROTO_TCP, info, _TCP_INFO)
        except OSError:  # not of TCP
            return None
        return float(struct.unpack_from("I", data, _LAST_DATA_RECEIVED)[0]) / 1000

    def inform(self, request: Request, status: int, headers: HeaderList) -> None:
        self._server().inform(self, request, status, headers)

    def hijack(self, request: Request) -> HijackedSocket:
        return self._server().hijack(self, request)

    def _server(self) -> SyncWorker:
        if self.worker is None:
            raise RuntimeError("the request is over")
        return self.worker

    # ---- Sending and ending ----------------------------------------------------------------

    def abort_with_reset(self) -> None:
        """Make the coming `close` a visible failure to a client that reads to the end."""
        if isinstance(self.sock, socket.socket):
            reset = struct.pack("ii", 1, 0)  # on, and no time for it: see socket(7) on SO_LINGER
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        else:
            self.sock.truncated = True

    def abandon(self) -> None:
        """Let go of a socket that is somebody else's now, so that `close` leaves it open."""
        self.abandoned = True

    def disconnect(self) -> None:
        """Cut the line from another thread: the owner sees an end of input or a broken pipe."""
        if self.abandoned:
            return
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def send_from(self, view: memoryview) -> int:
        """How much of `view` the kernel took: 0 when it is full. Raises `ClientDisconnected`."""
        try:
            return self.send(view)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientDisconnected(str(error)) from error
