"""Request ids: from a trusted proxy or generated, and the same in application, log and client."""

from __future__ import annotations

import contextvars
import logging
import re
from typing import TYPE_CHECKING

from .errors import ConfigError
from .messages import RequestReceived, cgi_name

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from .config import ServerConfig
    from .config.groups import Log

# What can stand in a header, a log and a URL as it is. UUIDs, ULIDs and traceparents do.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")


_current: contextvars.ContextVar[str] = contextvars.ContextVar("threadwell_request_id", default="")


def request_id() -> str:
    """The id of the request that the calling code belongs to; empty outside of one.

    It follows the context of the request, into `asyncio` tasks and whatever copies contexts.
    """
    return _current.get()


def enter(request_id: str) -> None:
    """Make `request_id` that of the context that this is called in."""
    _current.set(request_id)


async def within(request_id: str, call: Coroutine[Any, Any, None]) -> None:
    """`call`, for a task whose context is the request's."""
    _current.set(request_id)
    await call


def named(head: RequestReceived) -> str:
    """What a message calls the request under way: method, path, and its id if it has one."""
    known = _current.get()
    return f"{head.method} {head.path}" + (f" [{known}]" if known else "")


class RequestIdFilter(logging.Filter):
    """Gives log records a `request_id`, for formats such as `%(request_id)s`; `-` without one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _current.get() or "-"
        return True


class RequestIds:
    """Gives requests their ids. Belongs to one thread, for its random numbers."""

    def __init__(self, header: str) -> None:
        self._name = header.encode("latin-1")
        self._variable = cgi_name(header)
        import random  # which takes as long as a tenth of the start

        self._bits = random.Random().getrandbits

    def give(self, head: RequestReceived, *, trusted: bool) -> tuple[str, RequestReceived]:
        """The id of a request, and its head with the id in the header, once.

        A well-formed id that a `trusted` peer has sent is kept; any other is replaced.
        """
        sent = head.variables.get(self._variable)
        if trusted and sent is not None and _WELL_FORMED.fullmatch(sent):
            return sent, head
        made = f"{self._bits(128):032x}"
        block = head.block
        if sent is not None:
            name = self._name.lower() + b":"
            version, *lines = block.split(b"\r\n")
            kept = [line for line in lines if not line.lower().startswith(name)]
            block = b"\r\n".join([version, *kept])
        block = b"%b\r\n%b: %b" % (block, self._name, made.encode("ascii"))
        variables = {**head.variables, self._variable: made}
        return made, head.with_fields(block, variables)


def check(settings: Log) -> None:
    """Raises `ConfigError` for options of request ids that make no sense together."""
    if settings.request_id_echo and not settings.request_id_header:
        raise ConfigError("request_id_echo: there is no id without request_id_header; give one")


def request_ids(config: ServerConfig) -> RequestIds | None:
    """The request ids that `config` asks for, for one thread; None if it asks for none."""
    header = config.log.request_id_header
    return RequestIds(header) if header else None
