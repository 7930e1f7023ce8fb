"""Functions that other threads give a loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from threadwell.worker.asgi.loop_calls import LoopCalls

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


def run(test: Callable[[LoopCalls], Any], **options: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: options["failed"].append(context))
        await test(LoopCalls(loop, contextvars.Context()))

    asyncio.run(main())


def test_several_calls_wake_the_loop_once_and_keep_their_order() -> None:
    found: list[int] = []

    async def test(calls: LoopCalls) -> None:
        loop = asyncio.get_running_loop()
        woken, wake = [], loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given, **named: (  # type: ignore[method-assign]
            woken.append(given),
            wake(*given, **named),
        )[1]
        done = asyncio.Event()
        thread = threading.Thread(target=lambda: [calls.add(found.append, n) for n in range(50)])
        thread.start()
        thread.join()
        calls.add(done.set)
        await done.wait()
        assert len(woken) == 1

    run(test)
    assert found == [*range(50)]


def test_many_threads_lose_no_call() -> None:
    found: list[int] = []

    async def test(calls: LoopCalls) -> None:
        done = asyncio.Event()

        def give(first: int) -> None:
            for number in range(first, first + 500):
                calls.add(found.append, number)

        threads = [threading.Thread(target=give, args=(at * 500,)) for at in range(4)]
        for thread in threads:
            thread.start()
        await asyncio.get_running_loop().run_in_executor(None, lambda: [t.join() for t in threads])
        calls.add(done.set)
        await done.wait()

    run(test)
    assert sorted(found) == [*range(2000)]
    for first in range(0, 2000, 500):
        own = [number for number in found if first <= number < first + 500]
        assert own == sorted(own)


def test_one_that_raises_costs_no_other_its_turn() -> None:
    found: list[str] = []
    failed: list[dict[str, Any]] = []

    async def test(calls: LoopCalls) -> None:
        done = asyncio.Event()
        calls.add(variable.set, "of the loop")
        calls.add([].pop)
        calls.add(lambda: found.append(variable.get()))
        calls.add(done.set)
        await done.wait()
        assert variable.get() == ""

    run(test, failed=failed)
    assert found == ["of the loop"]
    assert [type(context["exception"]) for context in failed] == [IndexError]


@pytest.mark.parametrize("after", [False, True])
def test_one_that_ends_the_process_leaves_the_others(after: bool) -> None:
    loop = asyncio.new_event_loop()
    calls = LoopCalls(loop, contextvars.Context())
    found: list[int] = []

    def leave() -> None:
        raise SystemExit(3)

    for function in (leave, lambda: found.append(1)):
        if after:
            calls.add(calls.after, function)
        else:
            calls.add(function)
    with pytest.raises(SystemExit):
        loop.run_forever()
    calls.add(loop.stop)
    loop.run_forever()
    loop.close()
    assert found == [1]


@pytest.mark.parametrize("before", [0, 1])
def test_a_loop_that_has_ended_takes_no_call(before: int) -> None:
    loop = asyncio.new_event_loop()
    calls = LoopCalls(loop, contextvars.Context())
    for _ in range(before):
        calls.add(int)
    loop.close()
    with pytest.raises(RuntimeError):
        calls.add(int)


def test_what_runs_after_the_calls_runs_once() -> None:
    found: list[str] = []

    async def test(calls: LoopCalls) -> None:
        done = asyncio.Event()

        def last() -> None:
            found.append("after")
            done.set()

        for name in ("one", "two", "three"):
            calls.add(found.append, name)
            calls.add(calls.after, last)
        await done.wait()
        done.clear()
        calls.add(calls.after, last)
        await done.wait()

    run(test)
    assert found == ["one", "two", "three", "after", "after"]
