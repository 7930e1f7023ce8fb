"""The fields that the server adds to every response: Server, and those of the option `header`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError, InvalidResponseError
from .response_head import encode_header

if TYPE_CHECKING:
    from ..config.groups import Responses

# What says of a body what it is. A second value would contradict that of the application.
_OF_THE_BODY = frozenset(("content-type", "content-encoding", "content-range", "etag"))


class OwnFields(NamedTuple):
    """Field lines with CRLF. `server` is empty if there is no such field."""

    server: bytes
    others: list[bytes]


def own_fields(settings: Responses) -> OwnFields:
    """The fields that `settings` describe. Raises `ConfigError`."""
    try:
        server, _ = encode_header("Server", settings.server)
    except InvalidResponseError as error:
        raise ConfigError(f"server_header: {error}") from None
    if not settings.server.strip():
        raise ConfigError("server_header: it is empty; give a value, or none")
    others = [_field_line(text) for text in settings.headers]
    return OwnFields(b"" if settings.server == "none" else server, others)


def _field_line(text: str) -> bytes:
    name, colon, value = text.partition(":")
    if not colon or not value.strip():
        raise ConfigError(f"header: {text!r} is not a header field; write it as 'NAME: VALUE'")
    try:
        line, kind = encode_header(name.strip(), value)
    except InvalidResponseError as error:
        raise ConfigError(f"header: {error}") from None
    if name.strip().lower() == "server":
        raise ConfigError("header: Server has an option of its own, server_header")
    if kind or name.strip().lower() in _OF_THE_BODY:
        raise ConfigError(f"header: {name.strip()} belongs to each response; leave it out")
    return line
