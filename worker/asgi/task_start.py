"""Tasks that start at once, so that a call that waits for nothing is never scheduled.

Python does that from 3.12 on (`eager_start` of `asyncio.Task`). On 3.11 `FirstStep` does it.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

#: Starts a coroutine as a task, in a context; in a new one where that is None: the caller may run
#: in the context of another request.
TaskStart = Callable[
    [Coroutine[Any, Any, None], "contextvars.Context | None"], "asyncio.Task[None]"
]


def task_start(loop: asyncio.AbstractEventLoop) -> TaskStart:
    """The function that starts tasks on `loop`. Only the loop's thread may call it."""
    if sys.version_info < (3, 12):
        return FirstStep(loop).start

    def start(
        coroutine: Coroutine[Any, Any, None], context: contextvars.Context | None
    ) -> asyncio.Task[None]:
        context = contextvars.Context() if context is None else context
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]

    return start


class FirstStep:
    """Runs the first step of a task where the task is made.

    A task schedules its first step by `call_soon` of its loop, and the step is all that is taken
    over: the task enters itself, so `asyncio.current_task`, timeouts, cancellation and the context
    are those of any task. A loop whose tasks do not look `call_soon` up runs them a little later.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        self._call_soon = loop.call_soon
        self._context: contextvars.Context | None = None
        self._step: Callable[[], object] | None = None

    def start(
        self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context | None
    ) -> asyncio.Task[None]:
        """See `TaskStart`."""
        loop = self._loop
        self._context = context = contextvars.Context() if context is None else context
        loop.call_soon = self._take
        try:
            task = asyncio.Task(coroutine, loop=loop, context=context)
        finally:
            del loop.call_soon
        step, self._step = self._step, None
        if step is not None:
            try:
                context.run(step)
            except RuntimeError:
                # Another task is running, and only one can. Nothing of this one has run: what its
                # coroutine raises is the task's own.
                self._call_soon(step, context=context)
        return task

    def _take(
        self,
        callback: Callable[..., object],
        *arguments: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle | None:
        """`call_soon` while a task is made. A finalizer that runs meanwhile may call it, too."""
        if context is self._context and self._step is None:
            self._step = callback
            return None
        return self._call_soon(callback, *arguments, context=context)
