"""Messages between two processes of a server, over a pair of connected unix sockets.

A message is a dict, sent as one line of JSON. File descriptors can be sent along. When a process
ends for whatever reason, the kernel closes its end, and the other process sees the end of input.

The process at the other end may have been taken over by an attacker. So `receive` raises nothing,
takes a bounded amount at a time, and keeps descriptors only where they are expected.
"""

from __future__ import annotations

import json
import os
import socket
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..system.readiness import has_room

Message = dict[str, Any]

_RECEIVED_AT_ONCE = 65536
# One call of `receive` reads no more often: the caller has other pipes to look after. A socket's
# buffer holds less, so one call receives all that a process has sent before it exited.
_MOST_READS = 32
# Descriptors that may come with one message.
_MOST_DESCRIPTORS = 4
#: The longest error or traceback in a message. Of a longer one the end is kept: it says more.
LONGEST_TEXT = 16384
# A message has two such texts at most, and JSON takes up to 12 octets for a character.
_LONGEST_LINE = 2 * 12 * LONGEST_TEXT + 4096

# Seconds for the other process to read what it was sent.
_ROOM_TIMEOUT = 1.0

# Closed in every forked process, whether threadwell or the application forks: as long as a copy of
# an end is open, the other process does not see that this one has ended.
_open_pipes: weakref.WeakSet[Pipe] = weakref.WeakSet()


class Pipe:
    """One end. Belongs to one thread, and to the process that made it.

    `descriptors` says whether descriptors are received; if not, the kernel closes them.
    """

    def __init__(self, sock: socket.socket, *, descriptors: bool = False) -> None:
        self._sock = sock
        self._takes_descriptors = descriptors
        sock.setblocking(False)
        self._buffer = b""
        self._descriptors: deque[int] = deque()
        #: The other end is closed, and all that it sent was received; or there is an `error`.
        self.ended = False
        #: What was received and is no message; empty if there was nothing of the kind.
        self.error = ""
        _open_pipes.add(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send `message`, or drop it if the other end is closed or its buffer is full.

        The other end must take the `descriptors`; they stay open here, too.

        Does not wait. A small message is sent completely or not at all, see unix(7).
        """
        line = json.dumps(message).encode() + b"\n"
        try:
            if descriptors:
                socket.send_fds(self._sock, [line], descriptors)
            else:
                self._sock.send(line)
        except OSError:
            pass  # the other process hangs or has ended: heartbeats and the end of input show that

    def send_when_there_is_room(self, message: Message) -> None:
        """`send`, after a wait for the other process to read; in vain after a second."""
        if has_room(self.fileno(), _ROOM_TIMEOUT):
            self.send(message)

    def receive(self) -> list[Message]:
        """The messages that have arrived. Does not wait; sets `ended` after the last one.

        Sets `error` too where something is no message, and receives nothing from then on.
        """
        messages: list[Message] = []
        for _ in range(_MOST_READS):
            if self.ended:
                break
            try:
                data = self._read()
            except BlockingIOError:
                break
            except OSError:  # reset: the other end was closed with unread messages of this one
                data = b""
            self.ended = not data
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            if max(map(len, (*lines, self._buffer))) > _LONGEST_LINE:
                lines, self.error = [], "a line that is too long"
            messages += self._parse(lines)
            self.ended = self.ended or bool(self.error)
        return messages

    def _read(self) -> bytes:
        if not self._takes_descriptors:
            return self._sock.recv(_RECEIVED_AT_ONCE)
        data, descriptors, _, _ = socket.recv_fds(self._sock, _RECEIVED_AT_ONCE, _MOST_DESCRIPTORS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        return data

    def _parse(self, lines: list[bytes]) -> list[Message]:
        messages = []
        for line in lines:
            try:
                message = json.loads(line.decode())
            except (ValueError, RecursionError):  # of brackets: the parser is recursive
                message = None
            if not isinstance(message, dict):
                self.error = "a line that is not a message"
                break
            messages.append(message)
        return messages

    def next_descriptor(self) -> int:
        """The next descriptor that came with a message; the caller closes it."""
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close this end, and the descriptors that were received and not taken."""
        _open_pipes.discard(self)
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())


def pair() -> tuple[socket.socket, socket.socket]:
    """The sockets of two connected pipes; `exec` closes them."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _close_in_child() -> None:
    for pipe in list(_open_pipes):
        pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
