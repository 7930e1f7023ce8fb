"""What an HTTP/2 connection sends: frames of its streams in turn, as there is room."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import h2.exceptions

from ..asgi.connection import LoopConnection
from ..errors import ClientDisconnected
from .flood_guard import LARGEST_FRAME, FloodGuard
from .h2_adapter import STREAM_WINDOW, Framing, largest_list
from .stream import NO_ERROR, Stream

if TYPE_CHECKING:
    from ..asgi.loop_worker import LoopWorker
    from ..connection import Connection
    from .writer import Fields

log = logging.getLogger("threadwell")

# What leaves before others get a turn; the streams take turns with each frame.
_A_TURN = 256 * 1024
_FLUSHES_A_TURN = 4
# The answers to what has come at once leave together, but for those that take their time.
_GATHERING = 0.001
# Answers to pings, settings and the like that a client does not read: then it is not read either.
_MOST_HELD = 256 * 1024


class SendingLine(LoopConnection):
    """The sending half of an `HTTP2Connection`. Belongs to its loop."""

    __slots__ = (
        "_flood_guard", "_flushing", "_gathers_until", "_h2", "_held", "_shut", "_wanting",
        "finishing", "streams", "window",
    )  # fmt: skip

    def __init__(self, worker: LoopWorker, conn: Connection) -> None:
        super().__init__(worker, conn)
        self.window = STREAM_WINDOW
        #: All streams of which something is still to come: see `Stream.settled`.
        self.streams: dict[int, Stream] = {}
        #: Streams whose last octet is with h2.
        self.finishing: list[Stream] = []
        # streams with something to send, in turn; and those whose client has no room for it
        self._wanting: dict[int, Stream] = {}
        self._shut: dict[int, Stream] = {}
        self._flood_guard = FloodGuard(largest_list(worker.config))
        self._flushing = False
        self._gathers_until = 0.0
        self._held = 0
        self._h2 = Framing(worker.config)

    # ---- What a subclass does ---------------------------------------------------------------

    def settle(self, stream: Stream) -> None:
        """Let go of `stream` if nothing of it is to come any more."""
        raise NotImplementedError

    def _all_is_out(self) -> None:
        """The kernel has all that there was to send."""
        raise NotImplementedError

    # ---- Out ------------------------------------------------------------------------------

    def send_fields(self, stream: Stream, fields: Fields, *, end: bool) -> None:
        """Give fields to h2."""
        self._try(stream, self._h2.send_headers, stream.number, fields, end)

    def send_body(self, stream: Stream, data: bytes | memoryview, *, end: bool) -> None:
        """Give a frame to h2."""
        self._try(stream, self._h2.send_data, stream.number, data, end)
        self._flood_guard.sent(len(data))

    def _try(self, stream: Stream, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except h2.exceptions.ProtocolError as error:
            # reset by h2 itself, in the very events that are being handled
            stream.cut(str(error))

    def room(self, number: int) -> int:
        """How large the next frame of a stream may be."""
        try:
            window = self._h2.local_flow_control_window(number)
        except h2.exceptions.ProtocolError:
            return 0
        return min(window, self._h2.max_outbound_frame_size)

    def open_window(self, size: int, number: int | None = None) -> None:
        """Let the client send `size` octets more, on a stream or on the connection."""
        try:
            self._h2.increment_flow_control_window(size, number)
        except (h2.exceptions.ProtocolError, KeyError):
            log.debug("A window of a stream that is over was not opened")

    def reset(self, number: int, code: int) -> None:
        """Tell the client that a stream is over."""
        try:
            self._h2.reset_stream(number, code)
        except h2.exceptions.ProtocolError:
            log.debug("A stream that is over was not reset")

    def wants(self, stream: Stream) -> None:
        """`stream` has something to send."""
        self._shut.pop(stream.number, None)
        self._wanting[stream.number] = stream

    def gather(self, now: float) -> None:
        """What is to be sent from now on may wait for more; until `gathered`, or a moment."""
        self._gathers_until = now + _GATHERING

    def gathered(self) -> None:
        """Nothing waits any more."""
        self._gathers_until = 0.0

    def flush(self) -> None:
        """Send what there is, as far as windows and kernel have room."""
        if self._flushing or self.closed:
            return
        if self._gathers_until and time.monotonic() < self._gathers_until:
            return
        self._flushing = True
        try:
            for _ in range(_FLUSHES_A_TURN):
                self._fill()
                data = self._h2.data_to_send()
                if not data:
                    break
                self.write(data)
                if self.conn.send_buffer is not None:
                    self._hold(len(data))
                    break
            else:
                self.worker.loop.call_soon(self.flush)
        except ClientDisconnected as error:
            self._flushing = False
            self.lost(str(error))
            return
        finally:
            self._flushing = False
        self._finished()

    def _fill(self) -> None:
        """Give h2 what it may send, a frame of each stream in turn."""
        wanting = self._wanting
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
                self._shut[number] = stream
            left -= stream.sent - before

    def _hold(self, size: int) -> None:
        """The kernel is full; a client that makes answers and reads none is not read either."""
        self._held += size
        if self._held > _MOST_HELD:
            self.pause_reading()

    def flushed(self) -> None:
        self._held = 0
        self.resume_reading()
        self._finished()
        self.flush()

    def _finished(self) -> None:
        """See to the streams whose answer is with the kernel, and to the end of the connection."""
        if self.conn.send_buffer is None:
            while self.finishing:
                stream = self.finishing.pop()
                stream.delivered = True
                stream.completed(complete=True)
                if not stream.received and not stream.discards():
                    stream.reset(NO_ERROR, "its request was answered before it was whole")
                self.settle(stream)
            self._all_is_out()

    def _forget(self, stream: Stream) -> None:
        self._wanting.pop(stream.number, None)
        self._shut.pop(stream.number, None)
