"""The sending side of an HTTP/2 connection: the frames of its streams take turns."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

from ..asgi.connection import LoopConnection
from ..errors import ClientDisconnected
from .frames import ENHANCE_YOUR_CALM, LARGEST_FRAME, NO_ERROR
from .framing import Framing
from .send_budget import SendBudget
from .settings import STREAM_WINDOW
from .stream import Stream

if TYPE_CHECKING:
    from ..asgi.interfaces import LoopContext
    from ..connection import Connection
    from ..messages import FileBody
    from .interfaces import Fields, Rendered
    from .send_budget import ProcessBudget

log = logging.getLogger("threadwell")

# How much is sent before other connections get a turn. Streams take turns with each frame.
_A_TURN = 256 * 1024
_FLUSHES_A_TURN = 4
# The responses to requests that were received at once are sent together, if they are made within
# so many seconds: a system call costs more than all else about a small response.
_GATHERING = 0.001
# A body up to this size needs no turn with those of other streams.
_SMALL_BODY = 2048
# How many octets of replies to pings, settings and the like may wait for a client. Beyond that the
# connection is not read until the client reads.
_MOST_UNREAD_REPLIES = 256 * 1024


class HTTP2Sender(LoopConnection):
    """The sending half of an `HTTP2Connection`. Belongs to its loop."""

    __slots__ = (
        "_flushing", "_batch_until", "_framing", "_unread_replies", "_blocked", "_ready",
        "budget", "finishing", "streams", "window",
    )  # fmt: skip

    def __init__(self, worker: LoopContext, conn: Connection, process: ProcessBudget) -> None:
        super().__init__(worker, conn)
        #: What waits for the client, in all streams.
        self.budget = SendBudget(worker.config.http2.send_buffer, process)
        self.window = STREAM_WINDOW
        #: The streams of which something is still to come; see `Stream.is_done`.
        self.streams: dict[int, Stream] = {}
        #: Streams whose last octet is in a frame, and not yet with the kernel.
        self.finishing: list[Stream] = []
        # streams with something to send, in their order; and those whose window is exhausted
        self._ready: dict[int, Stream] = {}
        self._blocked: dict[int, Stream] = {}
        self._flushing = False
        self._batch_until = 0.0
        self._unread_replies = 0
        self._framing = Framing(worker.config)

    @abstractmethod
    def forget_if_done(self, stream: Stream) -> None:
        """Forget `stream` if nothing of it is to come any more."""

    @abstractmethod
    def resume_held(self) -> None:
        """Begin the requests that the budget did not admit, as far as it admits them now."""

    @abstractmethod
    def _on_all_sent(self) -> None:
        """The kernel has everything that there was to send."""

    # ---- Out ------------------------------------------------------------------------------

    def send_fields(self, stream: Stream, fields: Fields, *, end: bool) -> None:
        """Frame a head or trailers."""
        if not self._framing.send_head(stream.number, fields, end=end):
            stream.cut("it was over")

    def send_body(self, stream: Stream, data: bytes | memoryview, *, end: bool) -> None:
        """Frame a part of a body, in the octets of one DATA frame."""
        if not self._framing.send_data(stream.number, data, end=end):
            stream.cut("it was over")
            return
        self._framing.flood_guard.sent(len(data))
        self.budget.taken += len(data)

    def capacity(self, number: int) -> int:
        """How large the next DATA frame of a stream may be."""
        return min(self._framing.capacity(number), LARGEST_FRAME)

    def send_small(self, stream: Stream, rendered: Rendered, body: bytes | FileBody) -> bool:
        """Send a whole response whose body is small; False if it has to go by the send queue.

        It needs no turn with other streams, and nothing of it waits in memory: the windows and the
        kernel have room for all of it.
        """
        size = rendered.allowed
        if type(body) is not bytes or len(body) != size or not 0 < size <= _SMALL_BODY:
            return False
        if (
            rendered.short
            or stream.headers_sent
            or stream.closed
            or self.conn.send_buffer is not None
        ):
            return False
        if self._framing.capacity(stream.number) < size:
            return False
        stream.begin(rendered)
        self.send_body(stream, body, end=True)
        stream.sent += len(body)
        stream.finish()
        self.flush()
        return True

    def open_window(self, size: int, number: int) -> None:
        """Let the client send `size` octets more on a stream."""
        self._framing.open_window(number, size)

    def reset(self, number: int, code: int) -> None:
        """Send RST_STREAM."""
        self._framing.reset(number, code)

    def schedule(self, stream: Stream) -> None:
        """`stream` has something to send."""
        self._blocked.pop(stream.number, None)
        self._ready[stream.number] = stream

    def begin_batch(self, now: float) -> None:
        """Let `flush` do nothing until `end_batch`, or for a millisecond: more may come to send."""
        self._batch_until = now + _GATHERING

    def gather(self) -> None:
        """Let `flush` wait for the answers that other threads have given to the loop as well, for a
        millisecond at most. For a function that `LoopWorker.call` runs."""
        if not self._batch_until:
            self.begin_batch(time.monotonic())
            self.worker.thread_calls.after(self._end_gathering)

    def _end_gathering(self) -> None:
        self.end_batch()
        self.flush()

    def end_batch(self) -> None:
        """Let the next `flush` send what has waited for more."""
        self._batch_until = 0.0

    def flush(self) -> None:
        """Send what there is, as far as the windows and the kernel have room."""
        if self._flushing or self.closed:
            return
        if self._batch_until and time.monotonic() < self._batch_until:
            return
        self._flushing = True
        try:
            for _ in range(_FLUSHES_A_TURN):
                was_full = self.conn.send_buffer is not None  # then `_fill` adds no response
                self._fill()
                data = self._framing.data_to_send()
                if not data:
                    break
                self.write(data)
                if self.conn.send_buffer is not None:
                    if was_full:
                        self._limit_replies(len(data))
                    break
            else:
                self.worker.loop.call_soon(self.flush)
        except ClientDisconnected as error:
            self._flushing = False
            self.lost(str(error))
            return
        finally:
            self._flushing = False
        self._complete_finished()
        if self.budget.holds and self.budget.has_room():
            self.worker.call(self.resume_held)  # not in the context of one of the calls

    def _fill(self) -> None:
        """Frame what the windows allow, a frame of each stream in turn."""
        wanting = self._ready
        left = _A_TURN
        while wanting and left > 0 and self.conn.send_buffer is None:
            number, stream = next(iter(wanting.items()))
            del wanting[number]
            before = stream.sent
            if stream.closed or stream.finished:
                continue
            if stream.send(LARGEST_FRAME):
                wanting[number] = stream
            elif stream.send_queue.size and not stream.closed:
                self._blocked[number] = stream
            left -= stream.sent - before

    def _limit_replies(self, size: int) -> None:
        """The kernel was full before: stop reading a client that causes replies and reads none."""
        self._unread_replies += size
        if self._unread_replies > _MOST_UNREAD_REPLIES:
            self.pause_reading()

    def on_flushed(self) -> None:
        self._unread_replies = 0
        self.resume_reading()
        self._complete_finished()
        self.flush()

    def _complete_finished(self) -> None:
        """Complete the streams whose response is with the kernel."""
        if self.conn.send_buffer is None:
            while self.finishing:
                stream = self.finishing.pop()
                stream.delivered = True
                stream.completed(complete=True)
                if not stream.received and not stream.is_worth_reading():
                    stream.reset(NO_ERROR, "its request was answered before it was whole")
                self.forget_if_done(stream)
            self._on_all_sent()

    # ---- Memory ---------------------------------------------------------------------------

    def shed(self) -> None:
        """Give up responses, the largest first and all but one, if more waits than this connection
        and the process may have."""
        largest = self._by_memory()
        while len(largest) > 1 and self.budget.is_excess():
            self._give_up(largest.pop())

    def check_budget(self, now: float) -> None:
        """Give up the responses of a client that takes nothing, the largest first, if the process
        exceeds its budget. Called about once a second."""
        stalled = self.budget.is_stalled(now)
        self.shed()
        if stalled:
            largest = self._by_memory()
            while largest and self.budget.is_share_of_excess():
                self._give_up(largest.pop())
        if self.budget.holds:  # what waits for other clients may have become less
            self.resume_held()

    def _by_memory(self) -> list[Stream]:
        """The streams of which something waits in memory, the largest last."""
        waiting = [each for each in self.streams.values() if each.send_queue.memory]
        return sorted(waiting, key=lambda each: each.send_queue.memory)

    def _give_up(self, stream: Stream) -> None:
        limit = "http2_send_buffer_total"
        self.worker.throttled_log.log(
            limit,
            logging.WARNING,
            "A response to %s was dropped: what waits for clients exceeds %s",
            stream.origin.client[0] or "a unix socket",
            limit,
        )
        stream.lost("the client does not take its response", ENHANCE_YOUR_CALM)

    def _forget(self, stream: Stream) -> None:
        self._ready.pop(stream.number, None)
        self._blocked.pop(stream.number, None)
