"""A single process that serves its own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .counters import blocks_for
from .endpoint import Endpoint, Monitor, open_metrics
from .gauges import take_stock
from .prometheus import Metric, counted, gauge, stocked
from .shared_pages import Ledger

if TYPE_CHECKING:
    from ..server import Server


def watch(server: Server) -> tuple[Monitor, memoryview[int]]:
    """Who serves the numbers of `server`, and started; and the page that it shall count on.

    Raises `ConfigError` for an address that cannot be had.
    """
    ledger = Ledger(1, blocks_for(server.config))
    page = ledger.page(ledger.take())

    def gather() -> list[Metric]:
        take_stock(server, page)
        ready = gauge("threadwell_ready", "Whether /readyz says so.", int(not server.ailing()))
        return [ready, *counted(ledger.totals()), *stocked(ledger.stocks())]

    monitor = Monitor(open_metrics(server.config), Endpoint(gather, server.ailing))
    monitor.start()
    return monitor, page
