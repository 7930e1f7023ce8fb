"""What the lifecycle collector is told of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lifecycle import ResponseCompleted

if TYPE_CHECKING:
    from ..asgi.cycle import Cycle
    from ..asgi.interfaces import LoopContext
    from ..messages import Request, Response
    from .stream_origin import StreamOrigin


class RecordedStream:
    """The part of a `Stream` that reports it to the collector, if there is one."""

    __slots__ = ("_received", "origin", "record", "sent", "worker")

    worker: LoopContext
    origin: StreamOrigin
    record: ResponseCompleted | None
    #: How many octets of the response's body were sent.
    sent: int
    _received: int

    def started(self, request: Request, since: float) -> None:
        """Report the request to the collector. It was complete at `since`. Any thread may call."""
        reporter = self.worker.reporter
        assert reporter is not None
        self.record = record = ResponseCompleted(request, since)
        record.request_id = self.origin.request_id
        if reporter.announces:
            reporter.start(request)

    def note(self, cycle: Cycle, response: Response) -> None:
        """Nothing to do: `Stream.begin` has noted what is needed."""

    def make_record(self) -> None:
        """Nothing to do: `started` has made it."""

    def completed(self, *, complete: bool) -> None:
        """Report the response to the collector, as sent or as given up."""
        record, self.record = self.record, None
        reporter = self.worker.reporter
        if record is not None and reporter is not None:
            record.body_bytes = self.sent
            record.received = self._received
            reporter.completed(record.end(self.origin.client, self.origin.peer, complete))
