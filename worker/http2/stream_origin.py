"""The client identity of a stream: a proxy sends the requests of many clients on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError

if TYPE_CHECKING:
    import socket

    from ..asgi.interfaces import LoopContext
    from ..config.groups import Log
    from ..connection import Connection
    from ..hijack import HijackedSocket
    from ..messages import (
        Address,
        HeaderList,
        Origin,
        Request,
        RequestReceived,
        Response,
        ResponseStream,
    )
    from ..tls.session import TLSSocket
    from .interfaces import Fields


class StreamOrigin:
    """The client identity of a stream, as a `Connection` has it for its requests.

    As a `messages.Channel` it is that of requests that only a collector sees. Made on the loop; not
    changed once the application has it.
    """

    __slots__ = (
        "_conn", "direct", "encrypted", "notes", "origin", "peer", "request_id", "sock",
    )  # fmt: skip

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.sock: socket.socket | TLSSocket = conn.sock
        self.peer: Address = conn.peer
        self.origin: Origin = conn.origin
        self.encrypted = conn.encrypted
        self.direct: Origin | None = conn.direct
        self.request_id = ""
        self.notes: dict[Any, Any] = {}

    @property
    def client(self) -> Address:
        """The client of the request."""
        return self.origin.client

    @property
    def is_trusted(self) -> bool:
        """Whether the connection comes from a trusted proxy."""
        return self.direct is not None and self.direct.trusted

    def reset_origin(self) -> None:
        """Take the identity of the connection itself."""
        if self.direct is not None:
            self.origin = self.direct

    def prepare(self, worker: LoopContext, head: RequestReceived) -> RequestReceived:
        """Apply what trusted proxies say of a request, and give it its id; the head to use.

        Raises `ProtocolError`.
        """
        if worker.forwarding is not None:
            try:
                head = worker.forwarding.amend(self, head)
            except ProtocolError:
                self.reset_origin()
                raise
        if worker.request_ids is not None:
            self.request_id, head = worker.request_ids.give(head, trusted=self.is_trusted)
        return head

    def add_id(self, fields: Fields, settings: Log) -> None:
        """Add the request's id to a response, if that is configured and the application has not."""
        if settings.request_id_echo and self.request_id:
            name = settings.request_id_header.lower().encode("latin-1")
            if all(field[0] != name for field in fields):
                fields.append((name, self.request_id.encode("ascii")))

    # ---- `messages.Channel` ---------------------------------------------------------------

    @property
    def headers_sent(self) -> bool:
        return False

    @property
    def tls(self) -> dict[str, str]:
        return self._conn.tls

    def stream(self, request: Request, response: Response) -> ResponseStream:  # noqa: ARG002
        raise RuntimeError("the request is over")

    def inform(self, request: Request, status: int, headers: HeaderList) -> None:  # noqa: ARG002
        raise RuntimeError("the request is over")

    def hijack(self, request: Request) -> HijackedSocket:  # noqa: ARG002
        raise RuntimeError("the request is over")
