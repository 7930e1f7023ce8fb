"""Several processes that serve the same sockets, and one that supervises them. POSIX only.

supervisor ---- owns the listening sockets, and imports no application
  fork server   with preload: has imported the application, and forks the workers
    worker      a `Server`
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
from ..control.endpoint import open_control
from ..errors import ConfigError, StartFailed
from ..messages import Loaded, Served
from ..server import Server
from ..tls.context import context_for
from .forking import Build, ServerSpec
from .phase import TRANSITIONS, IllegalPhase, Phase, Phased
from .supervisor import Supervisor
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

    `load` imports the application. It is called in a new process, at a reload in another new one:
    modules that the calling process has imported are not imported again. `build` makes a `Server`
    of the application and the sockets, and does not start it; the default is one with `config`.
    `started` is called when all workers are ready, with the `name` and `kind` that `load` has
    returned and whether the `gil` is on. `stopping` is called when the end begins.

    Metrics are served on `monitored`, which listen, or else on the `metrics_bind` of `config`.

    Call it in the main thread, before other threads are started. It closes the sockets. Raises
    `StartFailed` if the application cannot be loaded or served, `ConfigError` on a system that
    cannot fork, and `RuntimeError` if there are other threads.
    """
    build = build or partial(_default_build, config)
    spec = ServerSpec(load, build, config, list(sockets))
    control: socket.socket | None = None
    try:
        _check()
        if identity := find_identity(config.processes):
            identity.require_permission()
            identity.own(sockets)
            spec = replace(spec, **_as_user(identity, config, load, build))
        count = config.worker_count()
        if config.metrics.bind and not monitored:
            from ..metrics.endpoint import open_metrics

            monitored = open_metrics(config)
        callbacks = (started or _ignore, stopping or _ignore)
        control = open_control(config) if config.control.socket else None
        try:
            supervisor = Supervisor(spec, count, *callbacks, monitored=monitored, control=control)
        except OSError as error:
            raise ConfigError(f"the server cannot start: {error}") from None
        supervisor.run()
    finally:
        spec.close_sockets()
        for sock in monitored:
            sock.close()
        if control is not None:
            control.close()


def _as_user(
    identity: Identity, config: ServerConfig, load: Callable[[], Loaded], build: Build
) -> dict[str, Any]:
    """`load` and `build` for processes that become another user before they import anything.

    A private key that only root may read is read before that, in each new process: so a reload
    reads it again.
    """
    context: ssl.SSLContext | None = None

    def load_as_user() -> Loaded:
        nonlocal context
        context = context_for(config)
        identity.assume()
        return load()

    def build_with_context(app: Served, sockets: Sequence[socket.socket]) -> Server:
        server = build(app, sockets)
        if context is not None:
            server.use_context(context)
        return server

    return {"load": load_as_user, "build": build_with_context}


def _check() -> None:
    if not hasattr(os, "fork"):
        raise ConfigError("workers: this system cannot fork, so there can only be one process")
    if threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the supervisor forks, which other threads would not survive")


def _default_build(config: ServerConfig, app: Served, sockets: Sequence[socket.socket]) -> Server:
    return Server(app, config, sockets=sockets)


def _ignore(*_facts: object) -> None:
    pass
