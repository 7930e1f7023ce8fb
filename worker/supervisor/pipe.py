"""The line between two processes of a server: small messages over a pair of sockets.

A message is a dict, a line of JSON on the way. Descriptors can go along. When a process ends, by
whatever way, the kernel closes its end, and the other sees it.
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
# What is said of an application that failed; its end is what matters.
LONGEST_TEXT = 16384

# A process that is forked off, by threadwell or by the application, must not keep a line open that
# is not its own: its end would tell nobody any more.
_open: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel:
    """One end. Belongs to one thread, and to the process that made it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._buffer = b""
        self._descriptors: deque[int] = deque()
        #: The other end is gone, and all that it said was received.
        self.ended = False
        _open.add(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Say `message`. One that the other end has no room for, or cannot hear, is dropped.

        Small ones go whole or not at all: see unix(7).
        """
        line = json.dumps(message).encode() + b"\n"
        try:
            if descriptor is None:
                self._sock.send(line)
            else:
                socket.send_fds(self._sock, [line], [descriptor])
        except OSError:
            pass  # whoever reads there is stuck or gone, which is noticed otherwise

    def receive(self) -> list[Message]:
        """The messages that have come. Does not wait; sets `ended` after the last one."""
        while not self.ended:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._sock, _RECEIVED_AT_ONCE, _MOST_DESCRIPTORS
                )
            except BlockingIOError:
                break
            except OSError:  # reset: the other end was closed with words of ours unread
                data, descriptors = b"", []
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            self._descriptors += descriptors
            self._buffer += data
            self.ended = not data
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def descriptor(self) -> int:
        """The next descriptor that came along."""
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close this end."""
        _open.discard(self)
        self._sock.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, which `exec` closes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _close_in_child() -> None:
    for channel in list(_open):
        channel.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
