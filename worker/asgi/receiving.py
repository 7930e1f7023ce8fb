"""What an application receives of one request: its body, and then that the client has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..http.response_body import FILE_BLOCK
from .request_stream import BodyStream

if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from .interfaces import CycleTransport, Message


class Receiving:
    """The side of a `Cycle` that the application receives from. `Cycle` sets the attributes."""

    __slots__ = (
        "_body_given", "_receivers", "_was_told", "answered", "disconnected", "expects", "incoming",
    )  # fmt: skip

    #: The request's body: on its way, or complete in memory or in a file; None without one.
    incoming: BodyStream | bytes | BinaryIO | None
    #: The client waits for 100 (Continue) before it sends the body.
    expects: bool
    #: The response is complete, or the server has answered instead of the application.
    answered: bool
    disconnected: bool
    #: `receive` has returned the end of the body.
    _body_given: bool
    #: The calls of `receive` that wait.
    _receivers: list[asyncio.Future[None]] | None
    #: `receive` has told the application that the client has left.
    _was_told: bool

    if TYPE_CHECKING:
        # of `Cycle`
        transport: CycleTransport[Any]

        @property
        def headers_sent(self) -> bool: ...

        def _send_interim(self, status: int, headers: list[tuple[str, str]] | tuple[()]) -> None:
            """Send an interim response (RFC 9110, 15.2)."""

    async def receive(self) -> Message:
        """See the ASGI specification. Several tasks may call it at once."""
        if not self._body_given and not self.answered:
            incoming = self.incoming
            if incoming is None or isinstance(incoming, bytes):
                self._body_given = True
                return {"type": "http.request", "body": incoming or b"", "more_body": False}
            message = await self._receive_body(incoming)
            if message is not None:
                return message
        while not self.disconnected and not self.answered:
            await self._wait_for_change()
        self._was_told = True
        return {"type": "http.disconnect"}

    async def _receive_body(self, incoming: BodyStream | BinaryIO) -> Message | None:
        """The next part of the body; None when no other part will come."""
        if not isinstance(incoming, BodyStream):
            await asyncio.sleep(0)  # other connections get a turn between two blocks
            data = incoming.read(FILE_BLOCK)
            self._body_given = len(data) < FILE_BLOCK
            return {"type": "http.request", "body": data, "more_body": not self._body_given}
        while not self.answered and not self._body_given:
            if incoming.done or (incoming.buffered and not self.disconnected):
                data = incoming.take()
                self._body_given = incoming.done
                if not incoming.done:
                    self.transport.body_wanted()
                return {"type": "http.request", "body": data, "more_body": not incoming.done}
            if self.disconnected:
                break
            self._send_continue()
            await self._wait_for_change()
        return None

    def _send_continue(self) -> None:
        """Send 100 (Continue) to a client that waits for it (RFC 9110, 10.1.1)."""
        if self.expects and not self.headers_sent:
            self.expects = False
            self._send_interim(100, ())

    async def _wait_for_change(self) -> None:
        receiver: asyncio.Future[None] = self.transport.worker.loop.create_future()
        if self._receivers is None:
            self._receivers = []
        self._receivers.append(receiver)
        try:
            await receiver
        finally:
            if self._receivers and receiver in self._receivers:
                self._receivers.remove(receiver)

    def wake_receivers(self) -> None:
        """Have the tasks that wait in `receive` check again."""
        receivers, self._receivers = self._receivers, None
        for receiver in receivers or ():
            if not receiver.done():
                receiver.set_result(None)
                self._was_told = self._was_told or self.disconnected
