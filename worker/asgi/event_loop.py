"""The choice of an event loop, asyncio's or uvloop's, and how coroutines are run on it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..config import gil_enabled
from ..errors import ConfigError
from ..system.resources import available_cores, require_descriptors

if TYPE_CHECKING:
    from ..config import ServerConfig

log = logging.getLogger("threadwell")

# libuv aborts the process if it cannot open what it needs: two pairs for signals, an epoll, an
# eventfd, and two for io_uring.
_LIBUV_DESCRIPTORS = 8
# asyncio prints a traceback where it cannot have its selector, or the pair that wakes a loop.
_ASYNCIO_DESCRIPTORS = 3

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Held from the look at what there is until a loop has it: other threads create loops, too.
_creating = threading.Lock()


def loop_factory(name: str) -> LoopFactory:
    """The factory for the value `name` of the option `loop`; `auto` is uvloop if it is installed.

    Raises `ConfigError` if uvloop is required and not installed.
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
            return _checked(uvloop.new_event_loop)
    # not the default of Windows: a proactor cannot wait for sockets that it does not read itself
    return _selector_loop


def _checked(new_loop: LoopFactory) -> LoopFactory:
    @functools.wraps(new_loop)
    def checked() -> asyncio.AbstractEventLoop:
        with _creating:
            require_descriptors(_LIBUV_DESCRIPTORS)
            return new_loop()

    return checked


def _selector_loop() -> asyncio.AbstractEventLoop:
    with _creating:
        require_descriptors(_ASYNCIO_DESCRIPTORS)
        for sock in socket.socketpair():
            sock.close()
        return asyncio.SelectorEventLoop()


def loop_count(config: ServerConfig) -> int:
    """How many loops serve: the option, else one, or one per core where there is no GIL."""
    if config.asgi.loops:
        return config.asgi.loops
    return 1 if gil_enabled() else available_cores()


def misses_resets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `loop` may not report the reset of a connection: libuv stops watching a descriptor
    with an error after one report, and the read that follows may return data from before it."""
    return type(loop).__module__.startswith("uvloop")


async def unless_set(event: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> None:
    """Wait for `coroutine`; cancel it once `event` is set. Raises what `coroutine` raises."""
    loop = asyncio.get_running_loop()
    wanted, given_up = loop.create_task(coroutine), loop.create_task(event.wait())
    await asyncio.wait({wanted, given_up}, return_when=asyncio.FIRST_COMPLETED)
    for task in (wanted, given_up):
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if wanted.done() and not wanted.cancelled():
        wanted.result()


def run_to_its_end(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, None]) -> None:
    """As `runner.run`, but `SystemExit` in a task or callback of the application does not end it.

    asyncio raises `SystemExit` and `KeyboardInterrupt` of a task in the caller of the loop.
    """
    task: asyncio.Task[Any] | None = None

    async def main() -> None:
        nonlocal task
        task = asyncio.current_task()
        await coroutine

    proceed: Callable[[], object] = functools.partial(runner.run, main())
    while True:
        try:
            proceed()
            return
        except (SystemExit, KeyboardInterrupt) as error:
            if task is None or task.done() or _is_signal(error):
                raise
            log.error("A task of the application ended in %r", error, exc_info=error)
        proceed = functools.partial(runner.get_loop().run_until_complete, task)


def _is_signal(error: BaseException) -> bool:
    """Whether `error` is Ctrl-C, which Python raises on the main thread alone."""
    main = threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is main
