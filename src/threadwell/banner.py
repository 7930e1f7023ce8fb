"""The start message: where the server listens, what it serves, its threads, and the GIL."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from .version import __version__
from .worker import Server, gil_enabled

if TYPE_CHECKING:
    from collections.abc import Sequence

_WILDCARD_HOSTS = ("0.0.0.0", "::")


def start_message(
    server: Server,
    name: str,
    kind: str,
    notes: Sequence[str] = (),
    *,
    workers: int = 0,
    gil: bool | None = None,
) -> str:
    """The lines that a command prints once `server`, which is bound, accepts connections.

    `name` is what the user called the application. `kind` is its interface, such as `wsgi`, and
    after a comma anything else worth saying. `notes` are further lines. `workers` is the number of
    worker processes, 0 without a supervisor, and `gil` whether the GIL is on in them.
    """
    lines = [f"threadwell {__version__} serves {name} ({kind})"]
    lines += listening_urls(server)
    lines += adhoc_certificate_notes(server)
    pool = (
        _loops(server)
        if kind.partition(",")[0] == "asgi"
        else _plural(server.config.thread_count(), "thread")
    )
    if workers:
        pool = f"{_plural(workers, 'worker')} of {pool}"
    lines.append(f"{pool}, Python {sys.version.split()[0]}, {gil_state(gil)}")
    lines += gil_advice(gil)
    if kind.partition(",")[0] == "asgi" or ", with " in kind:
        lines += websocket_notes()
    lines += notes
    lines.append("Ctrl-C stops it")
    return "\n  ".join(lines)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _loops(server: Server) -> str:
    from .worker.asgi.event_loop import loop_count, loop_factory

    kind = loop_factory(server.config.asgi.loop).__module__.partition(".")[0]
    return _plural(loop_count(server.config), "event loop") + f" ({kind})"


def gil_state(gil: bool | None = None) -> str:
    """`GIL on` or `GIL off`: as `gil` says, or of this process without it."""
    return "GIL on" if (gil_enabled() if gil is None else gil) else "GIL off"


def gil_advice(gil: bool | None = None) -> list[str]:
    """How to switch off a GIL that an extension module has switched on in a free-threaded Python.

    Empty for any other Python, and if the user has chosen the GIL. `gil` is as for `gil_state`.
    """
    if gil is None:
        gil = gil_enabled()
    # `sys.flags` has this only since Python 3.14.
    chosen = "1" in (os.environ.get("PYTHON_GIL"), getattr(sys, "_xoptions", {}).get("gil"))
    # so the documentation of Python tells the builds apart; sysconfig would have to be imported
    if chosen or not gil or "free-threading" not in sys.version:
        return []
    return [
        "This Python can run without the GIL, but an imported module has switched it on:",
        "the RuntimeWarning above names the module, and PYTHON_GIL=0 keeps the GIL off",
    ]


def websocket_notes() -> list[str]:
    """That WebSockets of an ASGI application are refused, if the library for them is missing."""
    import importlib.util  # imported only for ASGI

    if importlib.util.find_spec("wsproto") is not None:
        return []
    return ["WebSockets are refused: wsproto is missing; pip install 'threadwell[asgi]'"]


def adhoc_certificate_notes(server: Server) -> list[str]:
    """Where to find the certificate authority behind `--cert adhoc`. Empty without that option."""
    if not server.config.tls.cert:
        return []
    path = server.authority_file
    if path is None:
        return ["The certificate was generated for this run, so clients will warn of it"]
    return [
        "The certificate was generated, so clients will warn of it unless they trust the one in",
        str(path),
    ]


def metrics_notes(urls: Sequence[str]) -> list[str]:
    """A line for each URL that serves metrics."""
    return [f"Metrics at {url}{'' if url.startswith('unix:') else '/metrics'}" for url in urls]


def listening_urls(server: Server, path: str = "") -> list[str]:
    """A text for each listening socket of `server`: its URL followed by `path`."""
    found = []
    for url, name in zip(server.urls, server.addresses, strict=True):
        if not isinstance(name, tuple):
            found.append(url)
        elif name[0] in _WILDCARD_HOSTS:
            found.append(f"{_with_ipv4(url + path)} (and on every other address of this machine)")
        else:
            found.append(url + path)
    return found


def _with_ipv4(url: str) -> str:
    """`url`, and its IPv4 form if the socket accepts both: IPv6 does not work everywhere."""
    if "[::1]" in url and socket.has_dualstack_ipv6():
        return f"{url.replace('[::1]', '127.0.0.1')} and {url}"
    return url
