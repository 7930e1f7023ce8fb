"""Functions that other threads give a loop to run."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable


class LoopCalls:
    """Runs functions on a loop, in their order, in `context`. Any thread may call.

    The loop is woken once for all that come until it looks: to wake it is a system call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self._loop = loop
        self._context = context
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # what runs after the functions that wait, once each
        self._after: dict[Callable[[], object], None] = {}
        #: The loop will look at what waits.
        self._is_woken = False

    def add(self, function: Callable[..., object], *arguments: Any) -> None:
        """Run `function` soon. Raises `RuntimeError` if the loop has ended."""
        self._waiting.append((function, arguments))
        if not self._is_woken:
            self._wake()
        elif self._loop.is_closed():
            raise RuntimeError("the event loop has ended")

    def after(self, function: Callable[[], object]) -> None:
        """Run `function` once, after the functions that run now. Called by one of them."""
        self._after[function] = None

    def _wake(self) -> None:
        self._is_woken = True
        self._loop.call_soon_threadsafe(self._run, context=self._context)

    def _run(self) -> None:
        # before the look, so that what comes later wakes the loop again
        self._is_woken = False
        # no more than wait now: other handles of the loop have their turn
        for _ in range(len(self._waiting)):
            self._call(*self._waiting.popleft())
        if self._after:
            for function in [*self._after]:
                del self._after[function]  # one by one: the others stay if this one ends the turn
                self._call(function, ())

    def _call(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except (SystemExit, KeyboardInterrupt):
            self._wake()  # for the others
            raise
        except BaseException as error:  # as a handle of asyncio does it
            message = f"Exception in {function!r}"
            self._loop.call_exception_handler({"message": message, "exception": error})
