"""`/metrics`, `/healthz` and `/readyz`, and who serves them: a worker like any other, on its own.

One process runs it on a thread. The supervisor, which must have no threads, gives it a turn now
and then; it never waits, and lends nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import ServerConfig
from ..errors import ConfigError
from ..messages import Request, Response
from ..net.bind import check_metrics_addresses, open_socket, parse_bind
from ..polling.kernel import KernelPoller
from ..sync_worker import SyncWorker
from .counters import blocks_for
from .gauges import write_gauges
from .prometheus import OPENMETRICS, PLAIN, Metric, counted, gauge, render, stocked
from .shared_pages import SharedPages

if TYPE_CHECKING:
    import socket

    from ..server import Server

# Connections that are served in one turn before the supervisor looks after its workers.
_CONNECTIONS_A_TURN = 16
# Seconds for what is being answered when the server has stopped.
_LAST_MOMENT = 1.0
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_UNCACHED = ("Cache-Control", "no-store")


class Endpoint:
    """A `SyncApp` for `/metrics`, `/healthz` and `/readyz`.

    `gather` returns the metrics. `unready_reason` returns why no requests should come, or an empty
    text when they may. Both are called on the thread that serves.
    """

    threadwell_interface = "sync"

    def __init__(
        self, gather: Callable[[], list[Metric]], unready_reason: Callable[[], str]
    ) -> None:
        self._gather = gather
        self._unready_reason = unready_reason

    def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, [("Allow", "GET, HEAD"), _TEXT], b"GET and HEAD are for this\n")
        if request.path == "/healthz":
            return Response(200, [_TEXT, _UNCACHED], b"alive\n")
        if request.path == "/readyz":
            why = self._unready_reason()
            status = 503 if why else 200
            return Response(status, [_TEXT, _UNCACHED], (why or "ready").encode() + b"\n")
        if request.path != "/metrics":
            return Response(404, [_TEXT], b"/metrics, /healthz and /readyz are here\n")
        openmetrics = "application/openmetrics-text" in request.header("accept")
        body = render(self._gather(), openmetrics=openmetrics)
        kind = ("Content-Type", OPENMETRICS if openmetrics else PLAIN)
        return Response(200, [kind, _UNCACHED], body.encode())


def open_metrics(config: ServerConfig) -> list[socket.socket]:
    """The sockets of `metrics_bind`. Raises `ConfigError` for one that cannot be had."""
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
    """Serves an `Endpoint` on `sockets`, which it closes in the end.

    Either `start` runs it on a thread, or somebody calls `turn` once a second, and whenever
    `fileno` is readable.
    """

    def __init__(self, sockets: Sequence[socket.socket], endpoint: Endpoint) -> None:
        config = ServerConfig.from_options(
            threads=1, max_streams=0, limit_body=0, limit_connections=100, limit_head=16384
        )
        self.addresses = [sock.getsockname() for sock in sockets]
        self._worker = SyncWorker(config, endpoint, None)
        for sock in sockets:
            self._worker.listen(sock)
        self._thread: threading.Thread | None = None

    # ---- On a thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Serve on a thread."""
        run = self._worker.run
        self._thread = threading.Thread(target=run, name="threadwell-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more. The one call that both ways have."""
        if self._thread is None:
            self._worker.close()
            return
        self._worker.shutdown(_LAST_MOMENT)
        self._thread.join(_LAST_MOMENT)

    # ---- In turns -------------------------------------------------------------------------

    def takes_turns(self) -> bool:
        """Whether it can do without a thread, on this system."""
        return isinstance(self._worker.poller, KernelPoller)

    def fileno(self) -> int:
        """Readable when there is something to do."""
        assert isinstance(self._worker.poller, KernelPoller)
        return self._worker.poller.fileno()

    def turn(self) -> None:
        """Do what there is to do, without waiting."""
        for _ in range(_CONNECTIONS_A_TURN):
            connection = self._worker.poller.wait(0)
            if connection is None:
                return
            self._worker._handle_connection(connection, connection.client, None)

    def abandon(self) -> None:
        """Let go of what a fork has copied, in the new process. Its sockets are gone already."""
        self._worker.poller.close()


def watch(server: Server) -> tuple[Monitor, memoryview[int]]:
    """Who serves the numbers of `server`, and started; and the page that it shall count on.

    Raises `ConfigError` for an address that cannot be had.
    """
    shared_pages = SharedPages(1, blocks_for(server.config))
    page = shared_pages.page(shared_pages.take())

    def gather() -> list[Metric]:
        write_gauges(server, page)
        ready = gauge(
            "threadwell_ready", "Whether /readyz says so.", int(not server.unready_reason())
        )
        return [ready, *counted(shared_pages.totals()), *stocked(shared_pages.stocks())]

    monitor = Monitor(open_metrics(server.config), Endpoint(gather, server.unready_reason))
    monitor.start()
    return monitor, page
