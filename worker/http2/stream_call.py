"""The call of an application for a stream of HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..asgi.cycle import Cycle
    from ..asgi.interfaces import LoopContext
    from ..messages import Address, RequestReceived


class StreamCall:
    """The call of an application for a stream, which learns the end of it: an `interfaces.Call`."""

    def __init__(self, worker: LoopContext, cycle: Cycle, over: Callable[[], None]) -> None:
        self._worker = worker
        self._cycle = cycle
        self._over = over
        self.task: asyncio.Task[None] | None = None

    @property
    def head(self) -> RequestReceived:
        return self._cycle.head

    @property
    def source(self) -> tuple[Address, str, float]:
        return self._cycle.source

    @property
    def progress(self) -> tuple[str, int]:
        return self._cycle.progress

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        """Call the application, once. An exception of the application does not leave `run`."""
        try:
            await self._cycle.run(app, scope)
        finally:
            if self.task is not None:
                self._worker.call_over(self)
            self._over()

    def ask_to_end(self) -> None:
        """Ask the application to end: the time for a graceful shutdown is almost over."""
        self._cycle.ask_to_end()
