"""Which event loop: asyncio's own, or uvloop's."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..config import gil_enabled
from ..cores import available_cores
from ..settings import ConfigError

if TYPE_CHECKING:
    from ..config import ServerConfig

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory:
    """What makes the loops that the option `loop` says; `auto` takes uvloop if it is installed.

    Raises `ConfigError` where uvloop is asked for and missing.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError(
                    "loop: uvloop is not installed; pip install uvloop, or leave it at auto"
                ) from None
        else:
            return uvloop.new_event_loop  # type: ignore[no-any-return,unused-ignore]
    # not the default of Windows, which cannot wait for sockets that are somebody else's
    return asyncio.SelectorEventLoop


def loop_count(config: ServerConfig) -> int:
    """How many loops serve: as told, else one, and one a core where there is no GIL."""
    if config.asgi.loops:
        return config.asgi.loops
    return 1 if gil_enabled() else available_cores()


def _eager() -> Callable[..., asyncio.Task[None]]:
    def start(
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> asyncio.Task[None]:
        context = contextvars.Context() if context is None else context
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]

    return start


def _scheduled(
    coroutine: Coroutine[Any, Any, None],
    loop: asyncio.AbstractEventLoop,
    context: contextvars.Context | None,
) -> asyncio.Task[None]:
    return loop.create_task(
        coroutine, context=contextvars.Context() if context is None else context
    )


def _start_function() -> Callable[..., asyncio.Task[None]]:
    import sys

    return _eager() if sys.version_info >= (3, 12) else _scheduled


#: Starts a task: at once where Python can, so that a call that waits for nothing is never
#: scheduled at all. Its context is its own and new, where none is given: what starts it may be the
#: end of another one.
start_task = _start_function()
