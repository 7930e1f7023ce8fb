"""The states of streams as the server sees them (RFC 9113, 5.1), and their windows (6.9)."""

from __future__ import annotations

import enum

from .frames import LARGEST_WINDOW

# How many closed streams are remembered, in two parts: the older one is dropped when the newer one
# is full, so that no entry has to be searched for.
_MOST_CLOSED = 1024


class Closed(enum.Enum):
    """How a stream was closed, and so what its client may still send on it."""

    #: Both sides have ended. Nothing may follow but WINDOW_UPDATE, RST_STREAM and PRIORITY.
    ENDED = "ended"
    #: By RST_STREAM, and the client has sent its last frame before. The same may follow.
    RESET = "reset"
    #: By the server, and the client may not know yet: what follows is discarded.
    ABANDONED = "abandoned"


class StreamState:
    """A stream that is open, or half-closed on one side. Belongs to the connection's loop."""

    __slots__ = ("has_trailers", "number", "receive_window", "received", "send_window", "sent")

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.number = number
        #: How many octets of DATA may be sent. May be negative, after new settings.
        self.send_window = send_window
        #: How many octets of DATA the client may send.
        self.receive_window = receive_window
        #: The client has ended its side: half-closed (remote).
        self.received = False
        #: The server has ended its side: half-closed (local).
        self.sent = False
        #: The second HEADERS frame of the client was received.
        self.has_trailers = False


class StreamStates:
    """The streams of one connection. Belongs to its loop.

    Streams are opened by the client only. Its first use of a number closes all lower ones that it
    has not used (RFC 9113, 5.1.1).
    """

    __slots__ = ("_newer", "_older", "_open", "last")

    def __init__(self) -> None:
        self._open: dict[int, StreamState] = {}
        self._newer: dict[int, Closed] = {}
        self._older: dict[int, Closed] = {}
        #: The highest number that the client has used.
        self.last = 0

    def get(self, number: int) -> StreamState | None:
        """Stream `number`, if it is not idle and not closed."""
        return self._open.get(number)

    def is_idle(self, number: int) -> bool:
        """Whether stream `number` was never used, nor any higher one."""
        return number > self.last or not number & 1

    def open(self, number: int, send_window: int, receive_window: int) -> StreamState:
        """Open the idle stream `number`."""
        self.last = number
        self._open[number] = state = StreamState(number, send_window, receive_window)
        return state

    def close(self, state: StreamState, how: Closed) -> None:
        """Forget `state`, and remember how it was closed."""
        del self._open[state.number]
        if len(self._newer) >= _MOST_CLOSED // 2:
            self._older, self._newer = self._newer, {}
        self._newer[state.number] = how

    def closed_by(self, number: int) -> Closed | None:
        """How stream `number` was closed; None if it was never used, or long ago."""
        return self._newer.get(number) or self._older.get(number)

    def end_abandoned(self, number: int) -> None:
        """The client has ended its side of a stream that the server had reset before."""
        for known in (self._newer, self._older):
            if number in known:
                known[number] = Closed.RESET
                return

    def change_windows(self, change: int) -> bool:
        """Change the send windows of all streams; False if one exceeds the largest window."""
        for state in self._open.values():
            state.send_window += change
            if state.send_window > LARGEST_WINDOW:
                return False
        return True
