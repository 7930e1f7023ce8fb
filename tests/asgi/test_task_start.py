"""Tasks that start at once: what the code in them may rely on."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from threadwell.worker.asgi.event_loop import loop_factory
from threadwell.worker.asgi.task_start import FirstStep, task_start

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def by_hand(loop: asyncio.AbstractEventLoop) -> Any:
    return FirstStep(loop).start


@pytest.fixture(params=[task_start, by_hand])
def make_start(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["asyncio", "auto"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Calls a function on a loop, outside of any task, and waits for the task that it returns."""

    def run(function: Callable[[], Any]) -> Any:
        async def main() -> Any:
            loop = asyncio.get_running_loop()
            made: asyncio.Future[Any] = loop.create_future()

            def call() -> None:
                try:
                    made.set_result(function())
                except BaseException as error:
                    made.set_exception(error)

            loop.call_soon(call)
            return await (await made)

        with asyncio.Runner(loop_factory=loop_factory(request.param)) as runner:
            return runner.run(main())

    return run


def started(make_start: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return make_start(asyncio.get_running_loop())(coroutine, None)


def test_a_call_that_waits_for_nothing_is_done_at_once(make_start: Any, run: Any) -> None:
    async def call() -> str:
        return "done"

    def begin() -> Any:
        task = started(make_start, call())
        assert task.done()
        assert asyncio.current_task() is None
        return task

    assert run(begin) == "done"


def test_the_code_runs_in_its_task_before_and_after_it_has_waited(
    make_start: Any, run: Any
) -> None:
    tasks = []

    async def call() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    def begin() -> Any:
        task = started(make_start, call())
        assert not task.done()
        assert task in asyncio.all_tasks()
        tasks.append(task)
        return task

    run(begin)
    first, task, second = tasks
    assert first is task is second


def test_a_task_has_a_context_of_its_own(make_start: Any, run: Any) -> None:
    seen = []

    async def call() -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("of the task")
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())

    def begin() -> Any:
        VARIABLE.set("of the caller")
        task = started(make_start, call())
        assert VARIABLE.get() == "of the caller"
        return task

    run(begin)
    assert seen == ["unset", "of the task"]


def test_a_task_runs_in_the_context_that_is_given(make_start: Any, run: Any) -> None:
    context = contextvars.Context()
    context.run(VARIABLE.set, "given")

    async def call() -> str:
        return VARIABLE.get()

    assert run(lambda: make_start(asyncio.get_running_loop())(call(), context)) == "given"


def test_a_task_that_waits_can_be_cancelled(make_start: Any, run: Any) -> None:
    async def call() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    def begin() -> Any:
        task = started(make_start, call())
        task.cancel()
        return task

    assert run(begin) == "cancelled"


def test_an_exception_is_the_tasks_own(make_start: Any, run: Any) -> None:
    async def call() -> None:
        raise RuntimeError("of the call")

    with pytest.raises(RuntimeError, match="of the call"):
        run(lambda: started(make_start, call()))


def test_a_task_that_is_started_in_a_task(make_start: Any, run: Any) -> None:
    seen = []

    async def inner() -> str:
        seen.append(asyncio.current_task())
        return "inner"

    async def outer() -> str:
        before = asyncio.current_task()
        task = started(make_start, inner())
        assert asyncio.current_task() is before
        result: str = await task
        assert seen == [task]
        return result

    assert run(lambda: started(make_start, outer())) == "inner"


def test_callbacks_that_others_schedule_meanwhile_are_kept(run: Any) -> None:
    called = []

    def begin() -> Any:
        loop = asyncio.get_running_loop()
        starts = FirstStep(loop)

        async def call() -> None:
            await asyncio.sleep(0)

        real = starts._take
        finalized = iter([True])

        def take(callback: Any, *arguments: Any, context: Any = None) -> Any:
            if next(finalized, False):
                loop.call_soon(called.append, "by a finalizer")
            return real(callback, *arguments, context=context)

        starts._take = take  # type: ignore[method-assign]
        return starts.start(call(), None)

    run(begin)
    assert called == ["by a finalizer"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="nothing starts tasks eagerly before")
def test_newer_pythons_start_tasks_by_themselves() -> None:
    loop = asyncio.new_event_loop()
    try:
        assert not isinstance(getattr(task_start(loop), "__self__", None), FirstStep)
    finally:
        loop.close()
