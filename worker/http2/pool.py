"""The loops of HTTP/2, and what a line needs of its surroundings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..asgi.event_loop import loop_count
from ..asgi.pool import HandoffPool
from .request_head import HeadReader
from .writer import HTTP2Writer

if TYPE_CHECKING:
    from ..config import ServerConfig
    from ..lifecycle import LifecycleCollector


class Tools(NamedTuple):
    """What the lines of one loop share, for its caches."""

    writer: HTTP2Writer
    reader: HeadReader

    @classmethod
    def make(cls, config: ServerConfig) -> Tools:
        return cls(HTTP2Writer(config.timeouts), HeadReader(config.limits))


async def no_app(*_: Any) -> None:
    raise RuntimeError("there is no application on this loop")


def make_pool(config: ServerConfig, collector: LifecycleCollector | None) -> HandoffPool:
    """Loops for the connections of a sync application, which is not called on them."""
    config = replace(config, asgi=replace(config.asgi, lifespan="off"))
    return HandoffPool(no_app, config, collector=collector, loops=loop_count(config))
