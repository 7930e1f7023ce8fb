"""The exceptions that one module raises and another catches."""

from __future__ import annotations


class ProtocolError(Exception):
    """A client violated HTTP or exceeded a limit: answer once with `status`, then close.

    The code that raises it chooses the status, as with h11's `error_status_hint`. `limit` is the
    option whose value was exceeded, if one was.
    """

    def __init__(self, status: int, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.limit = limit


class ClientDisconnected(OSError):
    """The client closed its connection, or did not read its response before the deadline."""


class CleartextRequest(OSError):
    """A client sent a plain HTTP request where a TLS handshake was expected."""


class InvalidResponseError(ValueError):
    """An application returned a status or header that must not be sent (RFC 9110, 5.5)."""


class InvalidBodyError(InvalidResponseError, TypeError):
    """An application returned a body that is not made of bytes."""


class StreamLimitError(RuntimeError):
    """`max_streams` long responses are open already: answer 503."""


class StartupError(RuntimeError):
    """The lifespan of an ASGI application reported that startup failed."""


class NeedsAsyncError(Exception):
    """The request needs the asyncio side: it is an upgrade, or the sync application returned None
    or an asynchronous body."""


def is_client_disconnect(error: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Whether `error` was caused by a `ClientDisconnected`.

    For an exception group this must hold for all members. `seen` has the ids of the errors visited
    before: chains of causes may be circular, also through groups.
    """
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientDisconnected):
            return True
        seen |= {id(error)}
        if isinstance(error, BaseExceptionGroup):
            members = error.exceptions
            return all(is_client_disconnect(member, seen) for member in members)
        error = error.__cause__ or error.__context__
    return False


class ConfigError(ValueError):
    """A setting cannot be used. The message names it, says why, and suggests a fix."""


class StartFailed(Exception):
    """No worker has become ready. `trace` is the application's traceback, if that is why.

    `loaded` says whether the application could be imported.
    """

    def __init__(self, message: str, trace: str = "", *, loaded: bool = False) -> None:
        super().__init__(message)
        self.trace = trace
        self.loaded = loaded
