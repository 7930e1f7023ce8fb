"""A connection on a loop whose requests may come through trusted proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ProtocolError
from .http1 import HTTP1Connection

if TYPE_CHECKING:
    from ..messages import RequestReceived


class ForwardedConnection(HTTP1Connection):
    """An HTTP1Connection that applies what trusted proxies say of each request."""

    __slots__ = ()

    def _begin_request(self, head: RequestReceived) -> None:
        assert self.worker.forwarding is not None
        try:
            head = self.worker.forwarding.amend(self.conn, head)
        except ProtocolError as error:
            self.refuse(error.status, error.message, error.limit)
            return
        self.scopes.refresh()
        super()._begin_request(head)
