"""For whom the request of a stream comes: the connection carries those of others, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import ProtocolError

if TYPE_CHECKING:
    from ..asgi.loop_worker import LoopWorker
    from ..connection import Connection
    from ..messages import Origin, RequestReceived


class StreamOrigin:
    """To `proxies.Forwarding` and `request_id.RequestIds` it is a connection.

    Made on the loop; not changed once the application has it.
    """

    __slots__ = (
        "client", "client_port", "direct", "encrypted", "peer", "prefix", "request_id", "scheme",
        "server", "sock",
    )  # fmt: skip

    def __init__(self, conn: Connection) -> None:
        self.sock = conn.sock
        self.peer = conn.peer
        self.client = conn.client
        self.client_port = conn.client_port
        self.server = conn.server
        self.scheme = conn.scheme
        self.encrypted = conn.encrypted
        self.prefix = conn.prefix
        self.direct: Origin | None = conn.direct
        self.request_id = ""

    def represent(self, origin: Origin) -> None:
        """Come from `origin`."""
        self.client, self.client_port, self.server, self.scheme, self.prefix, _ = origin

    def represent_itself(self) -> None:
        """Come from where the connection comes from."""
        if self.direct is not None:
            self.represent(self.direct)

    def introduce(self, worker: LoopWorker, head: RequestReceived) -> RequestReceived:
        """`head` for the application, with what trusted proxies and request ids make of it.

        Raises `ProtocolError`.
        """
        me = cast("Connection", self)
        if worker.forwarding is not None:
            try:
                head = worker.forwarding.amend(me, head)
            except ProtocolError:
                self.represent_itself()
                raise
        if worker.request_ids is not None:
            head = worker.request_ids.give(me, head)
        return head
