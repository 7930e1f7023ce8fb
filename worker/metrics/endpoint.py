"""`/metrics`, `/status`, `/healthz` and `/readyz`, and the `SyncWorker` that serves them.

A server in one process runs it on a thread. The supervisor must not have threads: it polls, and
serves what is ready without waiting.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import ServerConfig
from ..connection import State
from ..errors import ConfigError
from ..http.response_head import TEXT_PLAIN
from ..messages import Request, Response
from ..net.bind import check_metrics_addresses, open_socket, parse_bind
from ..polling.kernel import KernelPoller
from ..sync_worker import SyncWorker
from ..system.threads import start_thread
from .backlog import backlog_metrics
from .counters import Page, blocks_for, private_page
from .prometheus import (
    OPENMETRICS,
    PLAIN,
    Metric,
    counter_metrics,
    gauge,
    gauge_metrics,
    render,
)
from .shared_pages import read_page
from .status_page import CONTENT_SECURITY_POLICY, StatusPage

if TYPE_CHECKING:
    import socket

# A probe needs one for a moment, Prometheus keeps one. At the limit the oldest gives way.
_MOST_CONNECTIONS = 100
# Whatever waits for its client: a probe must be answered, whoever else has connected.
_EVICTED = (State.LINGERING, State.IDLE, State.HEAD, State.BODY, State.WRITING)
# Connections that one call of `poll` serves: the supervisor has workers to look after.
_CONNECTIONS_PER_POLL = 16
# Seconds to finish a request when the server has stopped.
_LAST_MOMENT = 1.0
_UNCACHED = ("Cache-Control", "no-store")
_HTML = ("Content-Type", "text/html; charset=utf-8")
_POLICY = ("Content-Security-Policy", CONTENT_SECURITY_POLICY)


class Endpoint:
    """A `SyncApp` for `/metrics`, `/status`, `/healthz` and `/readyz`.

    `gather` returns the metrics. `unready_reason` returns why no requests should be sent to the
    server, or an empty text if they may. Both are called on the thread that serves this.
    """

    threadwell_interface = "sync"

    def __init__(
        self, gather: Callable[[], list[Metric]], unready_reason: Callable[[], str]
    ) -> None:
        self._gather = gather
        self._unready_reason = unready_reason
        self._status_page = StatusPage()

    def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(
                405, [("Allow", "GET, HEAD"), TEXT_PLAIN], b"GET and HEAD are for this\n"
            )
        if request.path == "/healthz":
            return Response(200, [TEXT_PLAIN, _UNCACHED], b"alive\n")
        if request.path == "/readyz":
            why = self._unready_reason()
            status = 503 if why else 200
            return Response(status, [TEXT_PLAIN, _UNCACHED], (why or "ready").encode() + b"\n")
        if request.path == "/status":
            page = self._status_page.render(self._gather(), self._unready_reason())
            return Response(200, [_HTML, _POLICY, _UNCACHED], page)
        if request.path != "/metrics":
            return Response(
                404, [TEXT_PLAIN], b"/metrics, /status, /healthz and /readyz are here\n"
            )
        openmetrics = "application/openmetrics-text" in request.header("accept")
        body = render(self._gather(), openmetrics=openmetrics)
        kind = ("Content-Type", OPENMETRICS if openmetrics else PLAIN)
        return Response(200, [kind, _UNCACHED], body.encode())


def open_metrics(config: ServerConfig) -> list[socket.socket]:
    """Listen on the addresses of `metrics_bind`. Raises `ConfigError` if that fails."""
    check_metrics_addresses(config.metrics)
    settings = replace(config.bind, reuse_port=False)
    with contextlib.ExitStack() as opened:
        sockets = []
        for text in config.metrics.bind:
            try:
                sock = open_socket(parse_bind(text), settings.backlog, settings)
            except OSError as error:
                raise ConfigError(
                    f"metrics_bind: cannot listen on {text}: {error.strerror or error};"
                    " give another address"
                ) from None
            except ConfigError as error:
                raise ConfigError(f"metrics_{error}") from None
            sockets.append(opened.enter_context(sock))
        opened.pop_all()
    return sockets


class Monitor:
    """Serves an `Endpoint` on `sockets`, which `close` closes.

    Either `start` runs it on a thread, or the caller polls: it calls `poll` once a second, and
    whenever `fileno` is readable.
    """

    def __init__(self, sockets: Sequence[socket.socket], endpoint: Endpoint) -> None:
        config = ServerConfig.from_options(
            threads=1,
            max_streams=0,
            limit_body=0,
            limit_connections=_MOST_CONNECTIONS,
            limit_head=16384,
        )
        self.addresses = [sock.getsockname() for sock in sockets]
        self._worker = SyncWorker(config, endpoint, None)
        self._worker.poller.evicted_states = _EVICTED
        for sock in sockets:
            self._worker.listen(sock)
        self._thread: threading.Thread | None = None

    # ---- On a thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Serve on a thread. Raises `OSError` if none can be started."""
        run = self._worker.run
        self._thread = threading.Thread(target=run, name="threadwell-metrics", daemon=True)
        try:
            start_thread(self._thread)
        except OSError:
            self._thread = None
            self.close()
            raise

    def close(self) -> None:
        """Stop serving, in either way."""
        if self._thread is None:
            self._worker.close()
            return
        self._worker.shutdown(_LAST_MOMENT)
        self._thread.join(_LAST_MOMENT)

    # ---- Polled ---------------------------------------------------------------------------

    def can_be_polled(self) -> bool:
        """Whether this system can serve without a thread."""
        return isinstance(self._worker.poller, KernelPoller)

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do."""
        assert isinstance(self._worker.poller, KernelPoller)
        return self._worker.poller.fileno()

    def poll(self) -> None:
        """Serve the connections that are ready, without waiting."""
        self._worker.serve_ready(_CONNECTIONS_PER_POLL)

    def close_copy(self) -> None:
        """In a forked process: close its copy of the poller. Its sockets are closed already."""
        self._worker.poller.close()


def start_monitor(
    config: ServerConfig,
    write_gauges: Callable[[], None],
    unready_reason: Callable[[], str],
    listening: Sequence[socket.socket] = (),
) -> tuple[Monitor, Page]:
    """Start a monitor on a thread; return it, and the page for its server to count on.

    `listening` are the sockets of the server. `write_gauges` brings the gauges of that page up to
    date; for `unready_reason` see `Endpoint`. Both are called on the thread of the monitor. Raises
    `ConfigError` for an address that cannot be bound.
    """
    page = private_page(blocks_for(config))

    def gather() -> list[Metric]:
        write_gauges()
        ready = gauge("threadwell_ready", "Whether /readyz says so.", int(not unready_reason()))
        counters, gauges = read_page(page)
        backlogs = backlog_metrics(listening)
        return [ready, *counter_metrics(counters), *gauge_metrics({0: gauges}), *backlogs]

    monitor = Monitor(open_metrics(config), Endpoint(gather, unready_reason))
    monitor.start()
    return monitor, page
