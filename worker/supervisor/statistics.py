"""The supervisor's own metrics: how many workers were started, have ended and were replaced."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from ..config import ServerConfig
    from ..metrics.endpoint import Monitor
    from ..metrics.prometheus import Metric
    from ..metrics.shared_pages import SharedPages

# Pages beyond those of two generations: for workers that SIGTTIN adds, and for those that drain.
_SPARE_PAGES = 64

#: How workers end, and why they are replaced.
ENDS = ("drained", "dismissed", "failed", "exit", "signal")
CAUSES = tuple("max_requests max_rss max_age worker_timeout request_timeout signal control".split())


class Statistics:
    """Called by the supervisor's thread only.

    `shared_pages`, which is None without metrics, is shared with processes that are forked later.
    """

    def __init__(self, config: ServerConfig, count: int) -> None:
        self.shared_pages: SharedPages | None = None
        if config.metrics.bind:
            from ..metrics.counters import blocks_for
            from ..metrics.shared_pages import SharedPages

            self.shared_pages = SharedPages(2 * count + _SPARE_PAGES, blocks_for(config))
        #: The endpoint for all this; None without metrics.
        self.monitor: Monitor | None = None
        self._starts = 0
        self._reloads = 0
        self._failed_reloads = 0
        self._ends = Counter(dict.fromkeys(ENDS, 0))
        self._replaced = Counter(dict.fromkeys(CAUSES, 0))

    def open(
        self,
        sockets: Sequence[socket.socket],
        gather: Callable[[], list[Metric]],
        unready_reason: Callable[[], str],
    ) -> None:
        """Serve an `Endpoint` of `gather` and `unready_reason` on `sockets`.

        Raises `ConfigError` on a system where that takes a thread.
        """
        from ..metrics.endpoint import Endpoint, Monitor

        self.monitor = Monitor(sockets, Endpoint(gather, unready_reason))
        if not self.monitor.can_be_polled():
            self.monitor.close()
            raise ConfigError(
                "metrics_bind: with a supervisor this needs epoll or kqueue; leave it out"
            )

    def poll(self) -> None:
        """Serve the endpoint. Called once a second, and when the monitor is readable."""
        if self.monitor is not None:
            self.monitor.poll()

    def close_copy(self) -> None:
        """In a forked process: close its copy of the endpoint, which the supervisor serves."""
        if self.monitor is not None:
            self.monitor.close_copy()
            self.monitor = None

    def close(self) -> None:
        """Close the endpoint."""
        if self.monitor is not None:
            self.monitor.close()

    def worker_started(self) -> int:
        """Count a start; return the number of the worker's page, or -1 if there is none."""
        self._starts += 1
        return self.shared_pages.take() if self.shared_pages is not None else -1

    def fork_failed(self, page: int) -> None:
        """Take back the start that `worker_started` has counted."""
        self._starts -= 1
        self._retire(page)

    def worker_ended(self, page: int, end: str) -> None:
        """Count an end, one of `ENDS`."""
        self._ends[end] += 1
        self._retire(page)

    def _retire(self, page: int) -> None:
        if self.shared_pages is not None and page >= 0:
            self.shared_pages.retire(page)

    def worker_replaced(self, cause: str) -> None:
        """Count a replacement that begins, for one of `CAUSES`."""
        self._replaced[cause] += 1

    def reloaded(self, *, well: bool) -> None:
        """Count a reload: the new application serves, or could not."""
        if well:
            self._reloads += 1
        else:
            self._failed_reloads += 1

    def metrics(
        self, sockets: Sequence[socket.socket], *, ready: bool, serving: int, wanted: int
    ) -> list[Metric]:
        """All metrics of all processes, which serve `sockets`."""
        from ..metrics.backlog import backlog_metrics
        from ..metrics.prometheus import counter, counter_metrics, gauge, gauge_metrics, labels

        assert self.shared_pages is not None
        ends = {labels(end=end): number for end, number in self._ends.items()}
        replaced = {labels(cause=cause): number for cause, number in self._replaced.items()}
        return [
            gauge("threadwell_ready", "1 if /readyz answers 200, else 0.", int(ready)),
            gauge("threadwell_workers", "Workers that are serving.", serving),
            gauge("threadwell_workers_wanted", "Workers that should serve.", wanted),
            counter("threadwell_worker_starts", "Workers that were started.", self._starts),
            counter("threadwell_worker_ends", "Workers that exited, by how.", ends),
            counter("threadwell_worker_replacements", "Workers replaced, by cause.", replaced),
            counter("threadwell_reloads", "Reloads that succeeded.", self._reloads),
            counter(
                "threadwell_reload_failures",
                "Reloads that failed.",
                self._failed_reloads,
            ),
            *counter_metrics(self.shared_pages.totals()),
            *gauge_metrics(self.shared_pages.gauges()),
            *backlog_metrics(sockets),
        ]
