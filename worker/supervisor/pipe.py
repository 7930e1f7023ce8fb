"""Messages between two processes of a server, over a pair of connected unix sockets.

A message is a dict, sent as one line of JSON. File descriptors can be sent along. When a process
ends for whatever reason, the kernel closes its end, and the other process sees the end of input.
"""

from __future__ import annotations

import json
import os
import socket
import weakref
from collections import deque
from typing import Any

Message = dict[str, Any]

_RECEIVED_AT_ONCE = 65536
# Descriptors that may come with one message.
_MOST_DESCRIPTORS = 4
#: The longest error or traceback in a message. Of a longer one the end is kept: it says more.
LONGEST_TEXT = 16384

# Closed in every forked process, whether threadwell or the application forks: as long as a copy of
# an end is open, the other process does not see that this one has ended.
_open_pipes: weakref.WeakSet[Pipe] = weakref.WeakSet()


class Pipe:
    """One end. Belongs to one thread, and to the process that made it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._buffer = b""
        self._descriptors: deque[int] = deque()
        #: The other end is closed, and all that it sent was received.
        self.ended = False
        _open_pipes.add(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send `message`, or drop it if the other end is closed or its buffer is full.

        Does not wait. A small message is sent completely or not at all, see unix(7).
        """
        line = json.dumps(message).encode() + b"\n"
        try:
            if descriptor is None:
                self._sock.send(line)
            else:
                socket.send_fds(self._sock, [line], [descriptor])
        except OSError:
            pass  # the other process hangs or has ended: heartbeats and the end of input show that

    def receive(self) -> list[Message]:
        """The messages that have arrived. Does not wait; sets `ended` after the last one."""
        while not self.ended:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._sock, _RECEIVED_AT_ONCE, _MOST_DESCRIPTORS
                )
            except BlockingIOError:
                break
            except OSError:  # reset: the other end was closed with unread messages of this one
                data, descriptors = b"", []
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            self._descriptors += descriptors
            self._buffer += data
            self.ended = not data
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def next_descriptor(self) -> int:
        """The next descriptor that came with a message; the caller closes it."""
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close this end."""
        _open_pipes.discard(self)
        self._sock.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """The sockets of two connected pipes; `exec` closes them."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _close_in_child() -> None:
    for pipe in list(_open_pipes):
        pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
