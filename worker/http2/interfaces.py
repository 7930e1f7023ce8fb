"""What the parts of HTTP/2 need of each other: protocols, and the types that pass between them.

    HTTP2Connection     satisfies StreamCarrier, and FrameListener
      Stream            satisfies AnswerSink, and `asgi.interfaces.CycleTransport`
    HTTP2Writer         satisfies ResponseRenderer

Everything here belongs to the loop's thread, unless a docstring says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ..asgi.interfaces import ASGIWriter

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..asgi.interfaces import LoopContext
    from ..asgi.scope import Scope
    from ..connection import Connection, RequestSource
    from ..messages import FileBody, RequestReceived, Response
    from .fair_queue import FairQueue
    from .request_head import MalformedError
    from .send_budget import SendBudget
    from .send_queue import SendQueue

StreamT = TypeVar("StreamT")

#: Names, in lower case, and values of a head (RFC 9113, 8.1).
Fields = list[tuple[bytes, bytes]]


class Rendered(NamedTuple):
    """The head of a response. `allowed` octets of body may follow; `short`: the head declares more
    than the body has."""

    status: int
    fields: Fields
    allowed: float
    short: bool


class ResponseRenderer(ASGIWriter, Protocol):
    """What a Stream needs of its HTTP2Writer."""

    def render(
        self, head: RequestReceived | None, response: Response, length: int | None
    ) -> Rendered:
        """The head of `response`, whose body has `length`, or is still being made (None)."""


class StreamCarrier(Protocol[StreamT]):
    """What a Stream, and the thread that runs its request, need of their HTTP2Connection."""

    #: How much a client may send on a stream without a WINDOW_UPDATE.
    window: int
    #: Streams whose last octet is in a frame, and not yet with the kernel.
    finishing: list[StreamT]
    #: What waits for the client, in all streams.
    budget: SendBudget
    #: The requests that wait for a thread; None where the application runs on the loop.
    fair_queue: FairQueue | None
    #: The common part of the scopes of all streams.
    template: Scope

    @property
    def worker(self) -> LoopContext: ...

    @property
    def writer(self) -> ResponseRenderer: ...

    @property
    def conn(self) -> Connection: ...

    @property
    def leaving(self) -> bool:
        """Whether the server stops. Any thread may ask."""

    def template_of(self, origin: RequestSource) -> Scope:
        """The common part of the scopes of requests from `origin`."""

    def submit(self, stream: StreamT, body: bytes | BinaryIO) -> None:
        """Have a thread answer the request of `stream`, which has arrived in full."""

    def call_asgi(self, stream: StreamT, body: Any) -> None:
        """Have the ASGI application answer a request that the sync application has declined."""

    def forget_if_done(self, stream: StreamT) -> None:
        """Forget `stream` if nothing of it is to come any more."""

    def mark_unbounded(self, stream: StreamT) -> None:
        """`stream` may never end. The server does not wait for a connection of such streams."""

    def reset_malformed(self, stream: StreamT, error: MalformedError) -> None:
        """Reset `stream`, whose request is malformed (RFC 9113, 8.1.1)."""

    def open_window(self, size: int, number: int) -> None:
        """Let the client send `size` octets more on a stream."""

    def send_fields(self, stream: StreamT, fields: Fields, *, end: bool) -> None:
        """Frame a head or trailers."""

    def send_body(self, stream: StreamT, data: bytes | memoryview, *, end: bool) -> None:
        """Frame a part of a body."""

    def capacity(self, number: int) -> int:
        """How large the next DATA frame of a stream may be."""

    def send_small(self, stream: StreamT, rendered: Rendered, body: bytes | FileBody) -> bool:
        """Send a whole response whose body is small; False if it has to go by the send queue."""

    def shed(self) -> None:
        """Give up responses, if more waits than this connection and the process may have."""

    def schedule(self, stream: StreamT) -> None:
        """`stream` has something to send."""

    def reset(self, number: int, code: int) -> None:
        """Send RST_STREAM."""

    def gather(self) -> None:
        """Let `flush` wait for other answers that threads have given to the loop."""

    def end_batch(self) -> None:
        """Let the next `flush` send what has waited for more."""

    def flush(self) -> None:
        """Send what there is, as far as the windows and the kernel have room."""


class FrameListener(Protocol):
    """What a `Framing` tells of the frames that it receives."""

    def request_received(self, number: int, fields: Fields, *, ended: bool) -> None:
        """A client has opened a stream; `ended`: it sends nothing more on it."""

    def data_received(self, number: int, data: bytes, size: int) -> None:
        """A part of a body; `size` is what it uses of the windows, with padding."""

    def trailers_received(self, number: int, fields: Fields, *, ended: bool) -> None:
        """A second field block. It is malformed unless the stream `ended` with it."""

    def stream_ended(self, number: int) -> None:
        """The client has ended its side of a stream, after the request's head."""

    def stream_reset(self, number: int) -> None:
        """A stream was reset, by its client or for an error of its client."""

    def window_opened(self, number: int) -> None:
        """More may be sent on a stream; on all of them if `number` is 0."""

    def ping_acknowledged(self, data: bytes) -> None:
        """The client has answered a ping with these octets."""


class AnswerSink(Protocol):
    """What an HTTP2Writer needs of the Stream that it writes to."""

    trailers: Fields | None

    @property
    def send_queue(self) -> SendQueue: ...

    def begin(self, rendered: Rendered) -> None:
        """Send the head of a response. Raises `ClientDisconnected`."""

    def answer(self, rendered: Rendered, blocks: list[bytes | FileBody]) -> None:
        """Send a complete response."""

    def interim(self, fields: Fields) -> None:
        """Send an interim response."""

    def has_more(self) -> None:
        """The send queue was filled."""

    def end(self, *, broken: bool = False) -> None:
        """Nothing more will be put into the send queue; `broken`: there should have been more."""

    def flush(self) -> None:
        """Send what there is, as far as the windows and the kernel have room."""
