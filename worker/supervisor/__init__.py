"""Several processes that serve the same sockets, and one that looks after them. POSIX.

supervisor ---- keeps the sockets, and imports no application
  template      with preload: has imported it, and serves nothing
    worker      a `Server` on threads
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config import ServerConfig
from ..errors import ConfigError
from ..net.bind import hosts_of
from ..server import Served, Server
from ..tls.context import make_context
from .forking import Build, Job, Loaded
from .phase import TRANSITIONS, IllegalPhase, Phase, Phased
from .supervisor import StartFailed, Supervisor
from .user import Identity, find_identity

if TYPE_CHECKING:
    import ssl

__all__ = [
    "TRANSITIONS",
    "IllegalPhase",
    "Loaded",
    "Phase",
    "Phased",
    "StartFailed",
    "run_supervised",
]


def run_supervised(
    load: Callable[[], Loaded],
    config: ServerConfig,
    sockets: Sequence[socket.socket],
    *,
    build: Build | None = None,
    started: Callable[[dict[str, Any]], None] | None = None,
    stopping: Callable[[], None] | None = None,
    monitored: Sequence[socket.socket] = (),
) -> None:
    """Serve on `sockets` with as many processes as `config` says, until SIGTERM or SIGINT.

    `load` imports the application. It is called in a new process, for a reload in another new
    one: what the calling process has imported already stays as it is. `build` makes a `Server`
    that is not started of the application and the sockets; by default one with `config`.
    `started` is called when all workers are ready, with the `name` and the `kind` that `load`
    gave and whether the `gil` is on; `stopping` when the end begins.

    On the sockets `monitored`, which listen, it serves metrics; those of the configuration's
    `metrics_bind` are opened otherwise.

    Call it in the main thread, and before others are started. The sockets are closed in the end.
    Raises `StartFailed` when the application cannot be loaded or served, `ConfigError` on a system
    that cannot fork, and `RuntimeError` beside other threads.
    """
    build = build or partial(_plain_server, config)
    job = Job(load, build, config, list(sockets))
    try:
        _check()
        if identity := find_identity(config.processes):
            identity.require_means()
            identity.give(sockets)
            job = replace(job, **_as_somebody(identity, config, load, build))
        count = config.worker_count()
        if config.metrics.bind and not monitored:
            from ..metrics.endpoint import open_metrics

            monitored = open_metrics(config)
        watchers = (started or _say_nothing, stopping or _say_nothing)
        Supervisor(job, count, *watchers, monitored=monitored).run()
    finally:
        job.close_sockets()
        for sock in monitored:
            sock.close()


def _as_somebody(
    identity: Identity, config: ServerConfig, load: Callable[[], Loaded], build: Build
) -> dict[str, Any]:
    """`load` and `build` for processes that become another user before anything is imported.

    What only root may read, a key, is read before that: in each new process, or a reload would
    have the old one.
    """
    context: ssl.SSLContext | None = None

    def load_as_somebody() -> Loaded:
        nonlocal context
        context = make_context(config.tls, hosts_of(config))
        identity.assume()
        return load()

    def build_with_context(app: Served, sockets: Sequence[socket.socket]) -> Server:
        server = build(app, sockets)
        if context is not None:
            server.use_context(context)
        return server

    return {"load": load_as_somebody, "build": build_with_context}


def _check() -> None:
    if not hasattr(os, "fork"):
        raise ConfigError("workers: this system cannot fork; one process is all there can be")
    if threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the supervisor forks, which other threads would not survive")


def _plain_server(config: ServerConfig, app: Served, sockets: Sequence[socket.socket]) -> Server:
    return Server(app, config, sockets=sockets)


def _say_nothing(*_facts: object) -> None:
    """For a caller that does not want to know."""
