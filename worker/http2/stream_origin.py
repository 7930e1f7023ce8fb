"""For whom the request of a stream comes: the connection carries those of others, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ProtocolError

if TYPE_CHECKING:
    from ..asgi.loop_worker import LoopWorker
    from ..connection import Connection
    from ..messages import Address, Origin, RequestReceived


class StreamOrigin:
    """To `proxies.Forwarding` and `request_id.RequestIds` it is a connection.

    Made on the loop; not changed once the application has it.
    """

    __slots__ = ("direct", "encrypted", "origin", "peer", "request_id", "sock")

    def __init__(self, conn: Connection) -> None:
        self.sock = conn.sock
        self.peer = conn.peer
        self.origin = conn.origin
        self.encrypted = conn.encrypted
        self.direct: Origin | None = conn.direct
        self.request_id = ""

    @property
    def client(self) -> Address:
        """For whom the request comes."""
        return self.origin.client

    def reset_origin(self) -> None:
        """Forget what the request said of its origin: the connection's own holds."""
        if self.direct is not None:
            self.origin = self.direct

    def introduce(self, worker: LoopWorker, head: RequestReceived) -> RequestReceived:
        """`head` for the application, with what trusted proxies and request ids make of it.

        Raises `ProtocolError`.
        """
        if worker.forwarding is not None:
            try:
                head = worker.forwarding.amend(self, head)
            except ProtocolError:
                self.reset_origin()
                raise
        if worker.request_ids is not None:
            trusted = self.direct is not None and self.direct.trusted
            self.request_id, head = worker.request_ids.give(head, trusted=trusted)
        return head
