"""The lifespan of an ASGI application: its startup and its shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from ..errors import StartupError
from .scope import LIFESPAN_SPEC

if TYPE_CHECKING:
    from ..messages import ASGIApp

log = logging.getLogger("threadwell")


class Lifespan:
    """One application's lifespan on one loop. The application fills `state`.

    An application that does not support the protocol is refused if the lifespan is `required`, and
    else served without it.
    """

    def __init__(self, app: ASGIApp, state: dict[str, Any], *, required: bool = False) -> None:
        self._app = app
        self._state = state
        self._required = required
        self._task: asyncio.Task[None] | None = None
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._started: asyncio.Future[None] | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._supported = False

    async def startup(self) -> None:
        """Return when the application is ready. Raises `StartupError` if its startup failed."""
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._stopped = loop.create_future()
        self._to_app.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run())
        await asyncio.wait([self._started, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not self._started.done():  # the application returned without an answer
            self._unsupported(None)
        await self._started

    async def shutdown(self, timeout: float) -> None:
        """Tell the application to shut down, and wait for it, `timeout` seconds at most."""
        task = self._task
        if task is None or self._stopped is None:
            return
        if self._supported and not task.done():
            self._to_app.put_nowait({"type": "lifespan.shutdown"})
            done, _ = await asyncio.wait([self._stopped, task], timeout=timeout)
            if not done:
                log.warning("The application took too long for lifespan.shutdown")
        task.cancel()
        with contextlib.suppress(BaseException):
            await task
        for future in (self._started, self._stopped):
            if future is not None and future.done() and not future.cancelled():
                future.exception()  # asyncio logs an exception that was never retrieved

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": LIFESPAN_SPEC.copy(), "state": self._state}
        assert self._started is not None
        assert self._stopped is not None
        try:
            await self._app(scope, self._to_app.get, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not self._started.done():
                self._unsupported(error)
            elif self._supported and not self._stopped.done():
                log.error("The application failed in its lifespan", exc_info=error)

    async def _send(self, message: Any) -> None:
        assert self._started is not None
        assert self._stopped is not None
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.done():
            self._supported = True
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            self._started.set_exception(StartupError(message.get("message", "")))
        elif kind == "lifespan.shutdown.complete" and not self._stopped.done():
            self._stopped.set_result(None)
        elif kind == "lifespan.shutdown.failed" and not self._stopped.done():
            log.error("The application's lifespan.shutdown failed: %s", message.get("message", ""))
            self._stopped.set_result(None)
        else:
            raise RuntimeError(f"{kind!r} cannot be sent now")

    def _unsupported(self, error: BaseException | None) -> None:
        """The application does not support it: it raised, or returned, before an answer."""
        assert self._started is not None
        if self._required:
            failure = StartupError("the application does not support lifespan")
            failure.__cause__ = error
            self._started.set_exception(failure)
            return
        if error is not None:
            # an application without one raises as soon as it sees the scope, as Channels does
            level = logging.DEBUG if self._to_app.qsize() else logging.INFO
            log.log(level, "The application is served without a lifespan: it raised %r", error)
        self._started.set_result(None)
