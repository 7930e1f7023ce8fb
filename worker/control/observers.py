"""What watches a server: the access log, the metrics, and the control socket."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from ..lifecycle import Collectors, LifecycleCollector
from ..net.bind import url_of

if TYPE_CHECKING:
    from typing import TextIO

    from ..config import ServerConfig
    from ..logs.request_log import RequestLog
    from ..metrics.counters import Page
    from ..metrics.endpoint import Monitor
    from ..metrics.otlp import OTLPExporter
    from .end_report import Stopping
    from .interfaces import ObservedServer
    from .report import ProcessReport
    from .single import ControlThread
    from .slow import SlowRequests


class Observers:
    """Belongs to one server. Any thread may call what has no other remark."""

    def __init__(self, server: ObservedServer, config: ServerConfig) -> None:
        self._server = server
        self._config = config
        self._access_log: RequestLog | None = None
        # Where metrics are counted: a page of the supervisor's, or else of this server's monitor.
        self._page: Page | None = None
        self._monitor: Monitor | None = None
        self._exporter: OTLPExporter | None = None
        # The monitor, the exporter and the main thread of a worker all write the gauges.
        self._gauges_lock = threading.Lock()
        self._control: ControlThread | None = None
        #: What the server says of itself; None unless it tracks requests, and before `open`.
        self.report: ProcessReport | None = None
        #: Requests that take too long; None as `report`.
        self.slow_requests: SlowRequests | None = None
        #: A supervisor has the control socket, asks for the report, and calls `tick`.
        self.supervised = False

    def count_into(self, page: memoryview[int]) -> None:
        """Before `open`: count metrics on `page`, which another process serves."""
        self._page = page

    def open(self, given: LifecycleCollector | None) -> LifecycleCollector | None:
        """Open what the configuration asks for, before the server accepts anything.

        One collector for `given`, the metrics and the access log; None without any. Raises
        `ConfigError`.
        """
        collectors = [] if given is None else [given]
        if self._page is None and self._config.metrics.bind:
            from ..metrics.endpoint import start_monitor

            self._monitor, self._page = start_monitor(
                self._config,
                self.write_gauges,
                self._server.unready_reason,
                self._server.listeners,
            )
        if self._config.metrics.otlp:
            self._open_exporter()
        if self._page is not None:
            from ..metrics.counters import MetricsCollector

            collectors.append(MetricsCollector(self._page))
        if self._config.log.access_log:
            from ..logs.request_log import open_request_log

            self._access_log = open_request_log(self._config.log)
            collectors.append(self._access_log)
        if self._config.tracks_requests():
            self._open_control()
        return Collectors(*collectors) if len(collectors) > 1 else next(iter(collectors), None)

    def _open_exporter(self) -> None:
        from ..metrics.counters import blocks_for, private_page
        from ..metrics.otlp import OTLPExporter
        from ..metrics.prometheus import Metric, counter_metrics, gauge_metrics
        from ..metrics.shared_pages import read_page

        if self._page is None:
            self._page = private_page(blocks_for(self._config))
        page = self._page
        if isinstance(page, memoryview):
            page = memoryview(page)  # which only the exporter takes slices of

        def gather() -> list[Metric]:
            self.write_gauges()
            totals, gauges = read_page(page)
            return [*counter_metrics(totals), *gauge_metrics({0: gauges})]

        self._exporter = OTLPExporter(gather)

    def _open_control(self) -> None:
        from .report import ProcessReport
        from .slow import SlowRequests

        self.report = ProcessReport(self._server)
        self.slow_requests = SlowRequests(self._config, self.report, self._cancel)
        if self.supervised:
            return
        from .endpoint import Endpoint, open_control
        from .single import ControlThread, SingleProcess

        endpoint = None
        if self._config.control.socket:
            handler = SingleProcess(self._server, self.report).handle
            endpoint = Endpoint(open_control(self._config), handler)
        self._control = ControlThread(self.tick, endpoint)

    def start(self) -> None:
        """The server serves: watch it. Raises `OSError` if the system has no thread left."""
        if self._control is not None:
            self._control.start()
        if self._exporter is not None:
            self._exporter.start()

    def tick(self) -> None:
        """Look at the requests under way. Called about once a second, by one thread."""
        if self.report is None or self.slow_requests is None:
            return
        self.slow_requests.look(self.report.tick())
        if self.slow_requests.overdue and not self.supervised:
            self._server.give_up()

    def _cancel(self, call: object) -> None:
        for pool in self._server.pools:
            pool.cancel(call)

    def has_only_overdue(self) -> bool:
        """Whether all connections that are left have requests that are beyond their time."""
        if self.slow_requests is None or not self.slow_requests.overdue:
            return False
        snapshots = [pool.snapshot() for pool in self._server.pools]
        left = sum(sum(each.connections.values()) for each in snapshots)
        return left <= len(self.slow_requests.overdue)

    def watch_end(
        self, server: Stopping, terminal: TextIO | None
    ) -> contextlib.AbstractContextManager[object]:
        """Around the end of `server`: tell what it waits for, on `terminal` if there is one."""
        try:
            from .end_report import EndReport  # most servers end long after their start
        except OSError:  # connections have taken all descriptors
            return contextlib.nullcontext()
        return EndReport(server, terminal)

    def close(self) -> None:
        """Close everything that was opened. The server has ended."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if self._access_log is not None:
            self._access_log.close()
        self.write_gauges()
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def reopen_logs(self) -> None:
        """Reopen the access log, after its file was renamed."""
        if self._access_log is not None:
            self._access_log.reopen()

    def write_gauges(self) -> None:
        """Bring the gauges of the page up to date, if there is one."""
        if self._page is not None:
            from ..metrics.counters import gauges_of
            from ..metrics.gauges import write_gauges

            with self._gauges_lock:
                snapshots = [pool.snapshot() for pool in self._server.pools]
                slow = self.slow_requests
                counted = (0, 0) if slow is None else (slow.slow, slow.timed_out)
                write_gauges(gauges_of(self._page), snapshots, self.lost_lines, *counted)

    @property
    def lost_lines(self) -> int:
        """How many lines of the access log could not be written."""
        return self._access_log.lost if self._access_log is not None else 0

    @property
    def metrics_urls(self) -> list[str]:
        """Where the metrics are served; known after `open`."""
        addresses = self._monitor.addresses if self._monitor is not None else []
        return [url_of("http", name) for name in addresses]
