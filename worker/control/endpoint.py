"""The control socket: its clients, none of which can hold up the server or another client."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config.groups import Bind
from ..errors import ConfigError
from ..net.bind import open_socket, parse_control
from .protocol import (
    LONGEST_COMMAND,
    Command,
    CommandError,
    GarbageError,
    Result,
    encode_error,
    encode_result,
    parse,
)

if TYPE_CHECKING:
    from ..config import ServerConfig

log = logging.getLogger("threadwell")

#: Takes the result of a command, or the `CommandError` that says why there is none.
Reply = Callable[["Result | CommandError"], None]
#: Carries a command out, and calls the `Reply` once: at once or later, on the same thread.
Handler = Callable[[Command, Reply], None]

# Further clients replace the one that has been silent the longest.
_MOST_CLIENTS = 32
# Seconds for a client to take an answer.
_SEND_TIMEOUT = 10.0
_BACKLOG = 128
_RECEIVED_AT_ONCE = 4096
_LAST_MOMENT = 0.2


def open_control(config: ServerConfig) -> socket.socket:
    """Listen on the address of `control`. Raises `ConfigError` if that fails."""
    text = config.control.socket
    # never readable for others, not even for a moment
    settings = replace(Bind(), unix_permissions="600")
    try:
        return open_socket(parse_control(text), _BACKLOG, settings)
    except OSError as error:
        raise ConfigError(
            f"control: cannot listen on {text}: {error.strerror or error}; give another path"
        ) from None
    except ConfigError as error:
        raise ConfigError(str(error).replace("bind:", "control:", 1)) from None


class Endpoint:
    """Serves the protocol on `sock`, which `close` closes. One thread at a time may call.

    The caller calls `poll` whenever `fileno` is readable, and once a second.
    """

    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        self._sock = sock
        self._handler = handler
        self._clients: dict[int, _Client] = {}
        # those that have taken their answer, and may have sent their next command
        self._answered: deque[_Client] = deque()
        self._selector = selectors.DefaultSelector()
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, None)

    def can_be_polled(self) -> bool:
        """Whether one descriptor of this system (epoll, kqueue) can stand for all clients."""
        return hasattr(self._selector, "fileno")

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do."""
        return int(self._selector.fileno())  # type: ignore[attr-defined,unused-ignore]

    def wake_by(self, sock: socket.socket) -> None:
        """Let `poll` also end when `sock` is readable."""
        self._selector.register(sock, selectors.EVENT_READ, sock)

    def poll(self, seconds: float = 0) -> None:
        """Serve the clients that are ready, after a wait of at most `seconds`."""
        for key, events in self._selector.select(0 if self._answered else seconds):
            if key.data is None:
                self._accept()
            elif isinstance(key.data, _Client):
                self._serve(key.data, events)
        # each at most once: a client may have sent many commands at once
        for _ in range(len(self._answered)):
            self._next_command(self._answered.popleft())
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.output and now >= client.deadline:
                self._drop(client)

    def close(self) -> None:
        """Close the socket and the connections, and remove the file."""
        for client in list(self._clients.values()):
            self._flush_last(client)
            self._drop(client)
        self._selector.close()
        self._sock.close()

    def close_copy(self) -> None:
        """In a forked process: close its copies. The file stays, for the parent listens on."""
        self._selector.close()
        for client in self._clients.values():
            client.sock.close()
        self._clients.clear()
        os.close(self._sock.detach())

    # ---- Clients --------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # none waits any more, or no descriptor is left
            for _ in range(_BACKLOG):
                sock = self._sock.accept()[0]
                if not _is_allowed(sock):
                    log.warning("A client of the control socket was refused: it is another user")
                    sock.close()
                    continue
                if len(self._clients) >= _MOST_CLIENTS:
                    self._drop(min(self._clients.values(), key=lambda each: each.active_at))
                sock.setblocking(False)
                client = self._clients[sock.fileno()] = _Client(sock)
                self._selector.register(sock, selectors.EVENT_READ, client)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(client)
            elif events & selectors.EVENT_READ:
                self._receive(client)
        except OSError:  # it has left
            self._drop(client)
        except Exception:
            log.exception("The control socket met an internal error")
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        data = client.sock.recv(_RECEIVED_AT_ONCE)
        if not data:
            self._drop(client)
            return
        client.active_at = time.monotonic()
        client.buffer += data
        self._next_command(client)

    def _next_command(self, client: _Client) -> None:
        """Carry out the next command, unless the client has yet to take an answer."""
        if client.is_waiting or client.output or client.is_closed:
            return
        line, end, rest = client.buffer.partition(b"\n")
        if len(line) >= LONGEST_COMMAND:
            client.ends = True
            self._answer(client, encode_error(f"a command has {LONGEST_COMMAND} octets at most"))
            return
        if not end:
            self._watch(client, selectors.EVENT_READ)
            return
        client.buffer = rest
        client.is_waiting = True
        # one command at a time: nothing more is read of the client meanwhile
        self._watch(client, 0)

        def reply(result: Result | CommandError) -> None:
            if not client.is_waiting:
                return
            client.is_waiting = False
            is_error = isinstance(result, CommandError)
            self._answer(client, encode_error(str(result)) if is_error else _encoded(result))

        try:
            self._handler(parse(line), reply)
        except CommandError as error:
            client.ends = isinstance(error, GarbageError)
            reply(error)
        except Exception:
            log.exception("A command of the control socket failed")
            reply(CommandError("the server met an internal error; its log has the traceback"))

    def _answer(self, client: _Client, line: bytes) -> None:
        if client.is_closed:
            return
        client.output = memoryview(line)
        client.deadline = time.monotonic() + _SEND_TIMEOUT
        try:
            self._send(client)
        except OSError:
            self._drop(client)

    def _send(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.output)
        except BlockingIOError:
            sent = 0
        if sent:
            client.deadline = time.monotonic() + _SEND_TIMEOUT
        client.output = client.output[sent:]
        if client.output:
            self._watch(client, selectors.EVENT_WRITE)
        elif client.ends:
            self._drop(client)
        else:
            self._answered.append(client)

    def _watch(self, client: _Client, events: int) -> None:
        if client.is_closed or events == client.watched:
            return
        if not events:
            self._selector.unregister(client.sock)
        elif client.watched:
            self._selector.modify(client.sock, events, client)
        else:
            self._selector.register(client.sock, events, client)
        client.watched = events

    def _flush_last(self, client: _Client) -> None:
        """Give a client what it is owed, if it takes it at once."""
        with contextlib.suppress(OSError):
            if client.output:
                client.sock.settimeout(_LAST_MOMENT)
                client.sock.sendall(client.output)

    def _drop(self, client: _Client) -> None:
        if client.is_closed:
            return
        self._watch(client, 0)
        client.is_closed = True
        client.is_waiting = False
        self._clients.pop(client.sock.fileno(), None)
        client.sock.close()


class _Client:
    """One connection of a client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        #: What the client has not taken yet of its answer, and when it is cut for that.
        self.output = memoryview(b"")
        self.deadline = 0.0
        self.active_at = time.monotonic()
        #: The events that the selector watches.
        self.watched = selectors.EVENT_READ
        #: A command is being carried out.
        self.is_waiting = False
        #: It is closed after this answer.
        self.ends = False
        self.is_closed = False


def _encoded(result: Result | CommandError) -> bytes:
    assert not isinstance(result, CommandError)
    return encode_result(result)


def _is_allowed(sock: socket.socket) -> bool:
    """Whether the process at the other end belongs to the user of this one, or to root.

    The permissions of the file say the same. Some systems ignore those of sockets: see unix(7).
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, size))
    return uid in (0, os.geteuid())
