"""The exceptions that cross a module's border, each with what its catcher needs to know."""

from __future__ import annotations


class ProtocolError(Exception):
    """A client broke HTTP, or went over a limit: one answer with `status`, and close.

    Whoever raises it knows the status, so nobody matches texts (as h11's `error_status_hint`).
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientDisconnected(OSError):
    """The client closed its connection, or did not take its response within the deadline."""


class PlainRequest(OSError):
    """Where a TLS handshake should begin, a client sends a request without TLS."""


class InvalidResponseError(ValueError):
    """An application's status or header that must not go on the wire (RFC 9110, 5.5)."""


class StreamLimitError(RuntimeError):
    """As many long responses are open as `max_streams` allows: answer 503."""


class StartupError(RuntimeError):
    """An ASGI application's lifespan says that it cannot start."""


class NeedsAsyncError(Exception):
    """The request wants the asyncio side: an upgrade, or the sync application returned None, or an
    asynchronous body."""


def is_about_the_client(error: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Whether `error`, or what it was raised for, is that the client left.

    `seen` has the ids on the way to it: chains of errors may be circles, through groups too.
    """
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientDisconnected):
            return True
        seen |= {id(error)}
        if isinstance(error, BaseExceptionGroup):
            members = error.exceptions
            return all(is_about_the_client(member, seen) for member in members)
        error = error.__cause__ or error.__context__
    return False


class ConfigError(ValueError):
    """A setting that cannot be used. The message says which, why, and what would do."""
