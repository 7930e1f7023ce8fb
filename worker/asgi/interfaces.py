"""What the parts of the asyncio side need of each other: protocols, without behaviour.

    EventLoopPool                   satisfies LoopPoolView
      LoopWorker                    satisfies LoopContext
        OpeningConnection           satisfies ConnectionOnLoop
        HTTP1Connection             satisfies ConnectionOnLoop, CycleTransport, WebSocketTransport
          Cycle                     satisfies Call and DenialResponse
          Session                   satisfies Call and OctetSession
        http2's HTTP2Connection     satisfies ConnectionOnLoop
          http2's Stream            satisfies CycleTransport

Each class imports the protocols of its neighbours from here, and no module imports a module that
imports it. Everything here belongs to the loop's thread, unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Iterable

    from ..config import ServerConfig
    from ..connection import Connection
    from ..http1.body_store import BodyStore
    from ..http1.parser import RequestParser
    from ..interfaces import OriginPool
    from ..lifecycle import LifecycleCollector, ResponseCompleted
    from ..messages import Address, ASGIApp, RequestReceived, Response
    from ..polling.listener import Listener
    from ..proxies.trust import Forwarding
    from ..request_id import RequestIds
    from ..system.throttled_log import ThrottledLog
    from ..tls.wrong_port import WrongPort
    from .loop_calls import LoopCalls
    from .reporter import Reporter
    from .scope import ConnectionScopes, Scopes
    from .states import Pushed
    from .writer import LoopWriter

#: A message of the ASGI specification.
Message = Any

WorkerT = TypeVar("WorkerT")
CycleT_contra = TypeVar("CycleT_contra", contravariant=True)


class Call(Protocol):
    """A call of the application that waits for something."""

    #: The task that runs the call; None while the call has never waited.
    task: asyncio.Task[None] | None

    @property
    def head(self) -> RequestReceived:
        """The head of the request."""

    @property
    def source(self) -> tuple[Address, str, float]:
        """The client of the request; its id, if requests have ids; and for how many seconds it
        has run at least. Any thread may call."""

    @property
    def progress(self) -> tuple[str, int]:
        """One of `lifecycle.REQUEST_STATES`, and how many octets of the body were sent."""

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Call the application, once. An exception of the application does not leave `run`."""

    def ask_to_end(self) -> None:
        """Ask the application to end: the time for a graceful shutdown is almost over."""


# ---- The pool and its loops -------------------------------------------------------------------


class LoopPoolView(Protocol[WorkerT]):
    """What a LoopWorker needs of its pool. Any thread may call."""

    throttled_log: ThrottledLog
    wrong_port: WrongPort
    #: The memory for large request bodies: that of the threads, where there are some.
    body_store: BodyStore
    #: The state that the threads share with every request.
    lifespan_state: dict[str, Any]
    #: The pool accepts no more connections.
    stopping: bool
    #: Connections may still be handed over: a loop without connections must not end.
    expects_handoffs: bool
    #: The pool has one loop.
    is_alone: bool

    def has_no_room(self) -> bool:
        """Whether as many connections are open as the limit allows."""

    def least_busy(self, candidate: WorkerT) -> WorkerT:
        """The loop for a new connection: `candidate`, unless another has clearly fewer."""

    def loop_is_ready(self, worker: WorkerT) -> None:
        """`worker` serves, or has failed or ended."""

    def loop_has_ended(self) -> None:
        """A loop has ended."""

    def release_listener(self, listener: Listener) -> None:
        """A loop no longer waits for `listener`. Each loop calls it once."""

    def check_shutdown_event(self) -> None:
        """Begin to stop if the shutdown event is set. Called about once a second."""


class CallTracking(Protocol):
    """What a call needs of its loop's `tracking.LoopTracking`."""

    def has_timed_out(self) -> bool:
        """Whether the running task was cancelled because its call takes too long."""


class LoopContext(Protocol):
    """What a connection needs of its LoopWorker."""

    loop: asyncio.AbstractEventLoop
    #: The functions that other threads give the loop to run.
    thread_calls: LoopCalls
    config: ServerConfig
    collector: LifecycleCollector | None
    #: What tells the collector, if there is one.
    reporter: Reporter | None
    throttled_log: ThrottledLog
    wrong_port: WrongPort
    parser: RequestParser
    writer: LoopWriter
    scopes: Scopes
    request_ids: RequestIds | None
    #: Reads the headers of trusted proxies; None where no proxy is trusted.
    forwarding: Forwarding | None
    app: ASGIApp
    #: The state that the threads share with the requests that they hand over.
    shared_state: dict[str, Any]
    #: How many requests were begun.
    served: int
    #: Whether a connection may carry more than one request.
    persistent: bool
    draining: bool
    #: While draining: when idle connections close, in the seconds of `time.monotonic`.
    idle_until: float
    #: For `has_octets`.
    octets: memoryview

    @property
    def body_store(self) -> BodyStore:
        """The memory for large request bodies. Any thread may call."""

    def begin(
        self,
        call: Call,
        scope: dict[str, Any],
        app: ASGIApp | None = None,
        context: contextvars.Context | None = None,
        request_id: str = "",
    ) -> None:
        """Start a call of `app`, or of the worker's application. The state is put into `scope`."""

    def call_over(self, call: Call) -> None:
        """A call of the application has ended."""

    @property
    def tracking(self) -> CallTracking: ...

    def is_cancelled(self) -> bool:
        """Whether it was the server that has cancelled the call that is running."""

    def forget(self, connection: ConnectionOnLoop) -> None:
        """`connection` is closed, or has another owner."""

    def begin_protocol(self, connection: ConnectionOnLoop, protocol: str | None) -> None:
        """Serve the client of `connection`, which is done with its opening. The TLS handshake has
        agreed on `protocol` (ALPN, RFC 7301); HTTP/1.1 is spoken where it is unknown or None."""

    def call(self, function: Any, *arguments: Any) -> bool:
        """Run `function` on the loop, soon; False when the loop has ended. Any thread may call."""


# ---- Connections ------------------------------------------------------------------------------


class ConnectionOnLoop(Protocol):
    """What a LoopWorker needs of a connection, whatever protocol it speaks."""

    closed: bool

    @property
    def conn(self) -> Connection: ...

    def start(self) -> None:
        """Wait for what the client sends first."""

    def on_readable(self) -> None:
        """Receive. The loop calls it when there is input, the end of input included."""

    def watches_input(self) -> bool:
        """Whether the loop calls `on_readable` when there is input."""

    def check_deadline(self, now: float) -> None:
        """End what has taken too long. Called about once a second."""

    def drain(self, idle_until: float) -> None:
        """The server stops. An idle connection may stay until `idle_until`."""

    def close(self, reason: str) -> None:
        """End the connection; `reason` is for the collector."""

    def fail(self, error: Exception) -> None:
        """End the connection after a bug of threadwell."""

    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may call."""

    def idle_since(self) -> float | None:
        """When the connection became idle; None while it is not."""

    def state_name(self) -> str:
        """The name of the connection's state, for metrics. Any thread may call."""


#: Makes a connection of one protocol on one loop. The pool is that of the threads that run a sync
#: application; None where the application runs on the loop.
ConnectionFactory = Callable[["Connection", "OriginPool | None"], ConnectionOnLoop]

#: The protocols that may be agreed on in a TLS handshake (ALPN, RFC 7301), beside HTTP/1.1. A loop
#: calls each function once, for the factory of its own connections.
ALPNTable = Mapping[str, Callable[[LoopContext], ConnectionFactory]]


# ---- A request --------------------------------------------------------------------------------


class ResponseTarget(Protocol):
    """What a writer sends to: a `Connection`, or a stream of HTTP/2."""

    record: ResponseCompleted | None

    @property
    def send_buffer(self) -> object | None:
        """Not None while the application should wait before it sends more."""

    def abort_with_reset(self) -> None:
        """Let the client see that its response is not complete."""


class ResponseStream(Protocol):
    """A response whose body is still being made: a `LoopStream`, or an HTTP/2 `AnswerStream`.

    All but the properties may raise `ClientDisconnected`.
    """

    @property
    def holds(self) -> bool:
        """Whether `flush` has something to do."""

    @property
    def persistent(self) -> bool:
        """Whether the connection may carry another request after this response."""

    @property
    def sent(self) -> int:
        """How many octets of the body were sent."""

    def open(self) -> None:
        """Send the head without a block."""

    def push(self, block: bytes) -> Pushed:
        """Send or hold a small block that follows another, the fast way."""

    def write(self, block: bytes) -> None:
        """Send `block`."""

    def flush(self) -> None:
        """Send what is held."""

    def finish(self) -> None:
        """End the body."""

    def finish_with_last(self, block: bytes) -> None:
        """Send `block`, and end the body."""

    def finish_with_trailers(self, headers: Iterable[Any]) -> None:
        """End the body, and send trailers. Raises `InvalidResponseError`."""


class ASGIWriter(Protocol):
    """What a Cycle needs of a writer. `target` is the `conn` of the writer's own transport, which
    only the transport knows the class of. All raise `ClientDisconnected`."""

    def answer(
        self,
        target: Any,
        head: RequestReceived | None,
        status: int | str,
        headers: Any,
        body: Any,
        persistent: bool,
        /,
    ) -> bool:
        """Send a complete response; whether the connection persists."""

    def stream(
        self,
        target: Any,
        head: RequestReceived,
        status: int | str,
        headers: Any,
        persistent: bool,
        /,
    ) -> ResponseStream:
        """Begin a response whose body is still being made."""

    def interim(self, target: Any, status: int, headers: Any, /) -> None:
        """Send an interim response (RFC 9110, 15.2)."""


class CycleTransport(Protocol[CycleT_contra]):
    """What a Cycle needs to have its response sent: an HTTP1Connection, or an HTTP/2 Stream."""

    @property
    def worker(self) -> LoopContext: ...

    @property
    def writer(self) -> ASGIWriter: ...

    @property
    def conn(self) -> ResponseTarget: ...

    @property
    def closed(self) -> bool: ...

    @property
    def source(self) -> tuple[Address, str, float]:
        """The client of the request; its id, if requests have ids; and for how many seconds it
        has run at least. Any thread may call."""

    def note(self, cycle: CycleT_contra, response: Response, /) -> None:
        """The whole `response` of `cycle` was given to the kernel, or the rest of it waits. Called
        before `answered` if there is a collector."""

    def make_record(self) -> None:
        """A `ResponseCompleted` is needed for the request under way, if there is a collector."""

    def answered(self, cycle: CycleT_contra, /) -> None:
        """The response of `cycle` was given to the kernel, or the rest of it waits."""

    def body_wanted(self) -> None:
        """The application has taken what there was of the request's body."""

    def wait_for_room(self) -> None:
        """Send what waits as soon as there is room."""

    async def drained(self) -> None:
        """Wait until the application may send more. Raises `ClientDisconnected`."""

    def lost(self, why: str, /) -> None:
        """End: the client left before it had its response."""

    def close(self, reason: str, /) -> None:
        """End: the application failed in the middle of its response."""


# ---- A WebSocket ------------------------------------------------------------------------------


class OctetSession(Protocol):
    """What a connection needs of a session that took over its octets: a WebSocket."""

    def received(self, data: bytes) -> None:
        """Octets from the client; none is the end of input."""

    def flushed(self) -> None:
        """What had to wait is written."""

    def check_deadline(self, now: float) -> None:
        """End what has taken too long. Called about once a second."""

    def drain(self) -> None:
        """The server stops."""

    def lost(self) -> None:
        """The connection is closed."""


class DenialResponse(Protocol):
    """What a WebSocket needs of the Cycle that answers its request with HTTP instead."""

    async def send(self, message: Message) -> None: ...

    def answer_for_the_server(self, status: int, body: bytes) -> None: ...

    def application_returned(self) -> None: ...


class WebSocketTransport(Protocol):
    """What a WebSocket needs of its connection: an HTTP1Connection."""

    deadline: float

    @property
    def worker(self) -> LoopContext: ...

    @property
    def conn(self) -> Connection: ...

    @property
    def scopes(self) -> ConnectionScopes: ...

    @property
    def closed(self) -> bool: ...

    @property
    def reading(self) -> bool: ...

    @property
    def source(self) -> tuple[Address, str, float]: ...

    def refuse(self, status: int, message: str, limit: str = "") -> None: ...

    def send_last(self, response: Response) -> None: ...

    def begin_session(self, session: OctetSession) -> None: ...

    def end_session(self, session: OctetSession) -> None: ...

    def begin_denial(self, head: RequestReceived) -> DenialResponse: ...

    def resume_reading(self) -> None: ...

    def pause_reading(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None: ...

    def lost(self, why: str) -> None: ...

    def close(self, reason: str) -> None: ...
