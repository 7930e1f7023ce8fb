"""The border to the asyncio side: what a `SyncWorker` needs of it."""

from __future__ import annotations

from typing import Any, Protocol

from .connection import Connection
from .messages import Request, Response


class AsyncPool(Protocol):
    """Takes over connections whose request wants an event loop."""

    def adopt(
        self,
        connection: Connection,
        request: Request,
        state: dict[str, Any],
        response: Response | None = None,
    ) -> None:
        """Own `connection` from now on, which is ADOPTED, and answer `request`.

        The request is whole, with its body; what came behind it is in `connection.buffer`. `state`
        is the lifespan's. `response`, given only where there is one, is what the sync application
        has answered already: its body is asynchronous, and it is to be sent and closed.
        `connection.worker.take_back` takes the connection for its next request.
        Called on a worker's thread; must not block. What it raises says that the connection, the
        request's body and the response are still the worker's.
        """
