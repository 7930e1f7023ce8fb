"""One request and its response on an HTTP/2 connection, on the connection's loop.

For an ASGI application a `Cycle` writes the response; to it the stream is a `CycleTransport`. For a
`SyncApp` an `HTTP2ThreadTask` does, on a thread. Both fill the stream's `SendQueue`, and the
connection sends what is in it.
"""

from __future__ import annotations

import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any

from ..asgi.async_body import Streamed
from ..asgi.cycle import Cycle
from ..asgi.request_stream import MOST_DISCARDED
from ..connection import State
from ..deadlines import EXPIRIES
from ..errors import ClientDisconnected, ProtocolError
from ..http.error_response import log_limit
from ..http.response_head import TEXT_PLAIN
from ..lifecycle import ClientGone, Refused, ResponseCompleted
from ..messages import Address, FileBody, Request, RequestReceived, Response
from .frames import CANCEL, INTERNAL_ERROR, NO_ERROR
from .request_body import SpoolingReceiver, StreamedBody
from .request_head import MalformedError
from .send_queue import SendQueue
from .stream_call import StreamCall
from .stream_origin import StreamOrigin
from .stream_record import RecordedStream

if TYPE_CHECKING:
    import asyncio
    import contextvars

    from .interfaces import Fields, Rendered, ResponseRenderer, StreamCarrier

log = logging.getLogger("threadwell")


class Stream(RecordedStream):
    """A stream. Belongs to the loop's thread; only its `send_queue` is also used by others."""

    __slots__ = (
        "_unread", "_waiters", "_written_at", "_written_from", "closed", "conn", "connection",
        "cycle", "delivered", "finished", "head", "headers_sent", "incoming", "number",
        "received", "running", "send_queue", "trailers", "unbounded", "writer",
    )  # fmt: skip

    def __init__(
        self, connection: StreamCarrier[Stream], number: int, head: RequestReceived | None
    ) -> None:
        self.connection = connection
        self.number = number
        #: None while no valid head was read.
        self.head = head
        # see `asgi.interfaces.CycleTransport`: the writer sends to the stream itself
        self.worker = connection.worker
        self.writer: ResponseRenderer = connection.writer
        self.conn = self
        self.origin = StreamOrigin(connection.conn)
        self.record = None
        self.cycle: Cycle | None = None
        #: The request's body on its way; None once it is complete, or passed on.
        self.incoming: SpoolingReceiver | StreamedBody | None = None
        self.send_queue = SendQueue(connection.budget)
        self.trailers: Fields | None = None
        #: The client has ended its side of the stream.
        self.received = False
        #: The head of the response was sent.
        self.headers_sent = False
        #: The whole response is in frames.
        self.finished = False
        #: The whole response was given to the kernel.
        self.delivered = False
        #: Nothing more can be sent.
        self.closed = False
        #: The application runs the request, or will.
        self.running = False
        #: The response is an event stream, which a server that stops cannot wait for.
        self.unbounded = False
        self.sent = 0
        # since when something waits for the client's windows, and how much was sent by then. A
        # thread may fill the queue before the loop learns that the response begins: hence infinity
        self._written_at = math.inf
        self._written_from = 0
        self._unread = 0
        self._received = 0
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def source(self) -> tuple[Address, str, float]:
        return self.origin.client, self.origin.request_id, 0.0

    # ---- The request ----------------------------------------------------------------------

    def expect_body(self, *, streamed: bool) -> None:
        """A body follows the head. Raises `ProtocolError`."""
        assert self.head is not None
        config = self.worker.config
        if streamed:
            self.incoming = StreamedBody(self.head, config)
        else:
            self.incoming = SpoolingReceiver(
                self.head, config, time.monotonic(), self.worker.body_store
            )

    def call(self, app: Any, body: Any) -> None:
        """Run the ASGI application `app`; `body` is a `StreamedBody`, or complete."""
        worker, head = self.worker, self.head
        assert head is not None
        cycle = self._new_cycle(head)
        cycle.incoming = body
        cycle.expects = isinstance(body, StreamedBody) and self._expects_continue()
        if self.record is None and worker.collector is not None:
            self.started(Request(head, b"", self.origin), time.monotonic())
        template = self.connection.template
        if worker.forwarding is not None:
            template = self.connection.template_of(self.origin)
        scope = worker.scopes.http(template, head, worker.scopes.headers(head.block))
        self.running = True
        worker.begin(
            StreamCall(worker, cycle, self.over), scope, app, request_id=self.origin.request_id
        )

    def stream_for(
        self, request: Request, response: Response, context: contextvars.Context
    ) -> None:
        """Send `response`, which the sync application has returned with an asynchronous body."""
        cycle = self._new_cycle(request.head)
        self.running = True
        self.worker.begin(
            StreamCall(self.worker, cycle, self.over), {}, Streamed(request, response), context
        )

    def _new_cycle(self, head: RequestReceived) -> Cycle:
        self.cycle = cycle = Cycle(self, head)
        if self.closed:  # while a thread had the request: `cut` found no cycle to tell
            cycle.disconnect()
        return cycle

    def _expects_continue(self) -> bool:
        """Whether the client waits for 100 (Continue) before its body (RFC 9110, 10.1.1)."""
        assert self.head is not None
        return not self.received and "100-continue" in self.head.field("expect").lower()

    def send_continue(self) -> None:
        """Send 100 (Continue) to a client that waits for it."""
        if self._expects_continue():
            self.interim([(b":status", b"100")])

    def over(self) -> None:
        """The application, or the thread that ran it, is done with the stream."""
        self.running = False
        if self.closed:  # a record may have been made after the client had left
            self.completed(complete=False)
        self.connection.forget_if_done(self)

    def receive_data(self, data: bytes, size: int) -> None:
        """Take the data of a DATA frame; `size` is what it uses of the windows, with padding."""
        self._received += len(data)
        if self._check_length(whole=False):
            return
        incoming = self.incoming
        try:
            if incoming is not None and not self.finished:
                incoming.feed(data)
        except ProtocolError as error:
            self.refuse(error.status, error.message, error.limit)
            return
        self._unread += size
        if isinstance(incoming, SpoolingReceiver) and incoming.is_spooling:
            incoming.spool(self.worker.loop, self._spooled)
            return
        if not isinstance(incoming, StreamedBody) or self.finished:
            self.extend_window()
            return
        if incoming.buffered > MOST_DISCARDED:
            # the body's deadline does not run while the application takes its time
            incoming.pause()
        if self.cycle is not None:  # None while the request waits in the CallQueue
            self.cycle.wake_receivers()

    def _spooled(self, failure: BaseException | None) -> None:
        """A thread has written a part of the body to disk: the client may send more."""
        incoming = self.incoming
        assert isinstance(incoming, SpoolingReceiver)
        if failure is not None:
            self.reset(INTERNAL_ERROR, "its body could not be stored")
            return
        incoming.spool(self.worker.loop, self._spooled)
        self.extend_window()
        if self.received and not incoming.is_spooling:
            self._submit(incoming)
        self.connection.flush()

    def _submit(self, incoming: SpoolingReceiver) -> None:
        self.incoming = None
        body = incoming.finish()
        incoming.close()
        self.connection.submit(self, body)

    def body_wanted(self) -> None:
        """The application has taken what there was of a body."""
        if isinstance(self.incoming, StreamedBody):
            self.incoming.resume()
        self.extend_window()
        self.connection.flush()

    def extend_window(self) -> None:
        """Open the stream's window by what was taken, if that is worth a frame."""
        if self._unread >= self.connection.window // 2 and not (self.received or self.closed):
            self.connection.open_window(self._unread, self.number)
            self._unread = 0

    def receive_end(self) -> None:
        """The client has ended the request."""
        self.received = True
        if self._check_length(whole=True):
            return
        incoming = self.incoming
        if isinstance(incoming, StreamedBody):
            incoming.end()
            if self.cycle is not None:
                self.cycle.wake_receivers()
        elif incoming is not None and not (
            self.headers_sent or self.closed or incoming.is_spooling
        ):
            self._submit(incoming)
        self.connection.forget_if_done(self)

    def _check_length(self, *, whole: bool) -> bool:
        """Reset the stream if its body has not the declared length (RFC 9113, 8.1.1); whether it is
        closed. `whole`: the body is complete."""
        declared = self.head.content_length if self.head is not None else None
        if declared is None or self.finished or self.closed:
            return False
        if self._received > declared or (whole and self._received < declared):
            self.connection.reset_malformed(
                self, MalformedError("the body has not the length it should have")
            )
        return self.closed

    @property
    def missing(self) -> float:
        """How many octets of the body are to come; infinite where that is unknown."""
        if self.received:
            return 0
        if self.head is None or self.head.content_length is None or self.incoming is None:
            return float("inf")
        return self.head.content_length - self.incoming.size

    # ---- The response ---------------------------------------------------------------------

    @property
    def send_buffer(self) -> SendQueue | None:
        """Not None while the application must wait before it sends more."""
        return self.send_queue if self.send_queue.full else None

    async def drained(self) -> None:
        """Wait until the application may send more. Raises `ClientDisconnected`."""
        if self.send_queue.full and not self.closed:
            waiter: asyncio.Future[None] = self.worker.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self.closed:
            raise ClientDisconnected("the client left before it had read everything")

    def answered(self, cycle: Cycle) -> None:  # noqa: ARG002
        """Send what there is. `HTTP2Connection.forget_if_done` sees the end of the stream."""
        self.connection.flush()

    def wait_for_room(self) -> None:
        """Nothing to do: the connection waits for room by itself."""

    def flush(self) -> None:
        """Send what there is, as far as the windows and the kernel have room."""
        self.connection.flush()

    def interim(self, fields: Fields) -> None:
        """Send an interim response, unless the response has begun."""
        if not self.headers_sent and not self.closed:
            self.connection.send_fields(self, fields, end=False)
            self.connection.flush()

    def begin(self, rendered: Rendered) -> None:
        """Send the head of the response. Raises `ClientDisconnected` if the stream is closed, or
        was answered already."""
        if self.headers_sent or self.closed:
            raise ClientDisconnected("there is an answer already, or the client has left")
        self.headers_sent = True
        if self.record is not None:
            self.record.status, self.record.headers = rendered[:2]
        self._written_at = time.monotonic()
        self.origin.add_id(rendered.fields, self.worker.config.log)
        whole = rendered.allowed == 0
        self.connection.send_fields(self, rendered.fields, end=whole and not rendered.short)
        if whole and not rendered.short:
            self.send_queue.end()
            self.finish()

    def answer(self, rendered: Rendered, blocks: list[bytes | FileBody]) -> None:
        """Send a complete response: bytes, or a file whose descriptor belongs to the stream now."""
        if len(blocks) == 1 and self.connection.send_small(self, rendered, blocks[0]):
            return
        allowed = int(rendered.allowed)
        try:
            self.begin(rendered)
        except ClientDisconnected:
            allowed = 0
        for block in blocks:
            if isinstance(block, FileBody):
                if allowed:
                    block.count = min(block.count, allowed)
                    self.send_queue.put_file(block)
                else:
                    os.close(block.fd)
            elif allowed and block:
                self.send_queue.put(block[:allowed])
                allowed -= min(len(block), allowed)
        self.end(broken=rendered.short)

    def end(self, *, broken: bool = False) -> None:
        """Nothing more will be put into the send queue; `broken`: there should have been more."""
        self.send_queue.end(broken=broken)
        self.has_more()

    def has_more(self) -> None:
        """Something was put into the send queue."""
        if self.connection.budget.is_excess():
            self.connection.shed()
        if not self.finished and not self.closed:
            self.connection.schedule(self)
        self.connection.flush()

    def send(self, most: int) -> bool:
        """Frame the next octets; False if the windows are exhausted or nothing is queued."""
        send_queue = self.send_queue
        if send_queue.size:
            most = min(most, self.connection.capacity(self.number))
            if most <= 0:
                return False
            data = send_queue.take(most)
            last = (
                send_queue.ended
                and not send_queue.size
                and not send_queue.broken
                and not self.trailers
            )
            if data or last:
                self.connection.send_body(self, data, end=last)
                self.sent += len(data)
            if not send_queue.full:
                self._wake()
            if last:
                self.finish()
                return False
            return True
        if not send_queue.ended:
            return False
        if send_queue.broken:
            # only a reset tells the client that the response is not complete
            self.reset(INTERNAL_ERROR, "the answer is not whole")
        elif self.trailers:
            self.connection.send_fields(self, self.trailers, end=True)
            self.finish()
        else:
            self.connection.send_body(self, b"", end=True)
            self.finish()
        return False

    def finish(self) -> None:
        """The whole response is in frames; the next flush gives it to the kernel."""
        self.finished = True
        self.connection.finishing.append(self)

    def refuse(self, status: int, message: str, limit: str = "") -> None:
        """Answer `status` for the server. The application gets no more of the request.

        `limit` is the option that the request exceeds, if it is one.
        """
        log_limit(self.worker.throttled_log, self.origin.client, status, limit)
        if self.headers_sent:
            self.reset(CANCEL, message)
            return
        if self.worker.collector is not None:
            self.worker.collector.record(Refused(self.origin.client, str(status)))
            if self.record is None:
                self.record = ResponseCompleted(None, time.monotonic())
        if isinstance(self.incoming, SpoolingReceiver):
            self.incoming.close()
            self.incoming = None
        if self.cycle is not None:
            self.cycle.answered = True
            self.cycle.disconnect()
        body = message.encode("latin-1", "replace") + b"\n"
        response = Response(status, [TEXT_PLAIN], body)
        self.answer(self.writer.render(self.head, response, len(body)), [body])

    # ---- The end --------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """End the stream if its client takes too long. Called about once a second."""
        timeouts = self.worker.config.timeouts
        if self.send_queue.size:
            sent = self.sent - self._written_from
            if now >= self._written_at + timeouts.write + sent / timeouts.min_rate:
                self.lost(EXPIRIES[State.WRITING].reason, CANCEL)
                return
        else:
            self._written_at, self._written_from = now, self.sent
        incoming = self.incoming
        if not self.received and incoming is not None and now >= incoming.deadline:
            if self.finished:
                self.reset(NO_ERROR, "the rest of the request did not arrive in time")
            else:
                expiry = EXPIRIES[State.BODY]
                self.refuse(expiry.status, expiry.reason)

    def is_done(self) -> bool:
        """Whether nothing of the stream is to come any more.

        A stream that was reset counts until the application is done with it (CVE-2023-44487). A
        stream that was answered does not, whatever its application still does.
        """
        return not self.running if self.closed else self.delivered and self.received

    def is_worth_reading(self) -> bool:
        """Whether the rest of a request is received although the request has its response."""
        return self.missing <= MOST_DISCARDED

    def lost(self, why: str, code: int = CANCEL) -> None:
        """Reset the stream: its client left before it had its response, or is too slow."""
        if self.closed:
            return
        record, collector = self.record, self.worker.collector
        if collector is not None and record is not None and record.request is not None:
            collector.record(ClientGone(record.request))
        self.reset(code, why)

    def close(self, reason: str) -> None:
        """Reset the stream: the application failed in the middle of its response."""
        self.connection.end_batch()
        self.connection.flush()
        self.reset(INTERNAL_ERROR, reason)

    def abort_with_reset(self) -> None:
        """Nothing to do: `close` resets the stream."""

    def reset(self, code: int, why: str) -> None:
        """Reset the stream; with NO_ERROR after a complete response (RFC 9113, 8.1)."""
        if not self.closed:
            self.connection.reset(self.number, code)
            self.cut(why)
            self.connection.flush()

    def cut(self, why: str) -> None:
        """Close the stream on this side: it was reset, or its connection ends."""
        if self.closed:
            return
        log.debug("A stream of %s ended: %s", self.connection.conn.client[0], why)
        self.closed = True
        self.send_queue.close()
        if isinstance(self.incoming, SpoolingReceiver):
            self.incoming.close()
            self.incoming = None
        self.completed(complete=self.finished and self.connection.conn.send_buffer is None)
        if self.cycle is not None:
            self.cycle.disconnect()
        self._wake()
        self.connection.forget_if_done(self)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
