"""The writer of HTTP/1.1 responses that adds the id of each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .writer import ResponseWriter, StreamWriter

if TYPE_CHECKING:
    from ..config import ServerConfig
    from ..connection import Connection
    from ..messages import Body, HeaderList, RequestReceived


class RequestIdWriter(ResponseWriter):
    """A writer that adds the request id to responses, unless the application has set it."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        self._header = config.log.request_id_header

    def answer(
        self,
        connection: Connection,
        head: RequestReceived | None,
        status: int | str,
        headers: HeaderList,
        body: Body,
        persistent: bool,
    ) -> bool:
        if head is not None:
            headers = self._with_id(connection, headers)
        return super().answer(connection, head, status, headers, body, persistent)

    def stream(
        self,
        connection: Connection,
        head: RequestReceived,
        status: int | str,
        headers: HeaderList,
        persistent: bool,
    ) -> StreamWriter:
        headers = self._with_id(connection, headers)
        return super().stream(connection, head, status, headers, persistent)

    def _with_id(self, connection: Connection, headers: HeaderList) -> HeaderList:
        name = self._header.lower()
        if any(_text(each[0]).lower() == name for each in headers):
            return headers
        return [*headers, (self._header, connection.request_id)]


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name
