"""Work for a serving thread that does not come from a connection of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ..lifecycle import RunningRequest
    from ..messages import Address

#: What a task needs of the thread that runs it: `threads.thread_state.ThreadState`.
Thread = TypeVar("Thread")


class ThreadTask(ABC, Generic[Thread]):
    """Given to a poller by `Poller.submit`, and by the poller to one thread."""

    peer: Address

    @abstractmethod
    def run(self, thread: Thread) -> None:
        """Do the work, on the calling thread. Nothing that happens in there escapes."""

    def running(self, thread: Thread) -> RunningRequest | None:  # noqa: ARG002
        """The request that `thread` runs for this task; None if it is none. Any thread may call."""
        return None

    @abstractmethod
    def drop(self) -> None:
        """Free what the task holds: no thread will run it."""


AnyTask = ThreadTask[Any]
