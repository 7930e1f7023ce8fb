"""The event loops for the HTTP/2 connections of a sync application."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..asgi.event_loop import loop_count
from ..asgi.pool import HandoffPool

if TYPE_CHECKING:
    from ..asgi.interfaces import ALPNTable
    from ..config import ServerConfig
    from ..lifecycle import LifecycleCollector


async def no_app(*_: Any) -> None:
    raise RuntimeError("there is no application on this loop")


def make_pool(
    config: ServerConfig, collector: LifecycleCollector | None, protocols: ALPNTable
) -> HandoffPool:
    """Loops that serve `protocols`. The application runs on the threads that hand over."""
    config = replace(config, asgi=replace(config.asgi, lifespan="off"))
    loops = loop_count(config)
    return HandoffPool(no_app, config, collector=collector, loops=loops, protocols=protocols)
