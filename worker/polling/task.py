"""Something for a serving thread to do that does not come from a connection of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..messages import Address
    from ..sync_worker import SyncWorker


class ThreadTask(ABC):
    """Given to a poller by `Poller.submit`, and by that to one thread."""

    client: Address

    @abstractmethod
    def run(self, worker: SyncWorker) -> None:
        """Do it, on the thread of `worker`. Nothing that happens in there escapes."""

    @abstractmethod
    def drop(self) -> None:
        """No thread will do it any more."""
