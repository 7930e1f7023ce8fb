"""WSGI applications and bodies that several tests of PEP 3333 use."""

from __future__ import annotations

import logging
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from ...helpers.wire_client import Answer, Client

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

PLAIN = [("Content-Type", "text/plain")]


class Seen:
    """An application that keeps a copy of every environ, and says `ok`."""

    def __init__(self) -> None:
        self.environs: list[Environ] = []
        self.types: list[type] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.types.append(type(environ))
        self.environs.append(dict(environ))
        start_response("200 OK", PLAIN)
        return [b"ok"]

    @property
    def last(self) -> Environ:
        return self.environs[-1]


class Body:
    """An iterable body that counts how often it is closed."""

    def __init__(self, blocks: Iterable[Any], error_at_close: BaseException | None = None) -> None:
        self._blocks = iter(blocks)
        self._error = error_at_close
        self.closes = 0
        self.closed = threading.Event()
        self.threads: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        self.threads.append(threading.get_ident())
        return self._blocks

    def close(self) -> None:
        self.closes += 1
        self.threads.append(threading.get_ident())
        self.closed.set()
        if self._error is not None:
            raise self._error


def answering(
    body: Any, status: str = "200 OK", headers: list[tuple[str, str]] | None = None
) -> App:
    """An application that always answers the same."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(PLAIN if headers is None else headers))
        return body  # type: ignore[no-any-return]

    return app


def temporary(data: bytes) -> Any:
    """A temporary file of `data`, at its start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever gets it closes it
    file.write(data)
    file.seek(0)
    return file


def http10(client: Client, target: str = "/", headers: str = "") -> Answer:
    client.send(f"GET {target} HTTP/1.0\r\n{headers}\r\n".encode("latin-1"))
    return client.answer()


def head(client: Client, target: str = "/") -> Answer:
    client.send(f"HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
    return client.answer("HEAD")


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Unrelated(BaseException):
    """What `except Exception` does not catch."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: LookupError("the secret"),
    "SystemExit": lambda: SystemExit(3),
    "BaseException": lambda: Unrelated("the secret"),
}
