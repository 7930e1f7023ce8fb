"""A client of the control socket, for `threadwell ctl` and `threadwell top`."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any, Self

from .worker.control.protocol import VERSION, encode_command

# Seconds for an answer. A server with several workers waits for up to five for those that hang.
_TIMEOUT = 10.0
_MOST = 64 * 1024 * 1024


class ControlError(Exception):
    """The server cannot be reached, or refuses a command. The text is one line for the user.

    `is_lost`: the connection cannot be used any more.
    """

    def __init__(self, text: str, *, is_lost: bool = True) -> None:
        super().__init__(text)
        self.is_lost = is_lost


class ControlClient:
    """A connection to the control socket at `path`, with or without `unix:` before it.

    Belongs to one thread. The constructor and `ask` raise `ControlError`.
    """

    def __init__(self, path: str) -> None:
        self._path = path.removeprefix("unix:")
        self._buffer = b""
        if not hasattr(socket, "AF_UNIX"):
            raise ControlError("this system has no unix sockets")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(_TIMEOUT)
        try:
            self._sock.connect(self._path)
        except OSError as error:
            self._sock.close()
            raise ControlError(self._why(error)) from None

    def _why(self, error: OSError) -> str:
        if isinstance(error, FileNotFoundError):
            return (
                f"{self._path}: there is no such socket; start the server with"
                f" --control unix:{self._path}"
            )
        if isinstance(error, ConnectionRefusedError):
            return f"{self._path}: no server listens there any more"
        if isinstance(error, BlockingIOError):  # its backlog is full
            return f"{self._path}: the server does not answer"
        if isinstance(error, PermissionError):
            return f"{self._path}: only the user that runs the server, and root, can connect"
        return f"{self._path}: {error.strerror or error}"

    def ask(self, verb: str, *arguments: str) -> dict[str, Any]:
        """The result of a command."""
        try:
            self._sock.sendall(encode_command(verb, list(arguments)))
            line = self._line()
        except TimeoutError:
            raise ControlError(f"{self._path}: the server does not answer") from None
        except OSError as error:
            raise ControlError(f"{self._path}: {error.strerror or error}") from None
        try:
            message = json.loads(line)
            version, fine = message["v"], message["ok"]
            result = message["result" if fine else "error"]
        except (ValueError, KeyError, TypeError):
            raise ControlError(
                f"{self._path}: this is not a control socket of threadwell"
            ) from None
        if version != VERSION:
            raise ControlError(
                f"{self._path}: the server speaks version {version!a}, not {VERSION}"
            )
        if not fine:
            raise ControlError(str(result), is_lost=False)
        found: dict[str, Any] = result
        return found

    def _line(self) -> bytes:
        pieces = [self._buffer]
        while b"\n" not in pieces[-1]:
            piece = self._sock.recv(65536)
            if not piece or sum(map(len, pieces)) > _MOST:
                raise ConnectionResetError(0, "the server has closed the connection")
            pieces.append(piece)
        line, _, self._buffer = b"".join(pieces).partition(b"\n")
        return line

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
