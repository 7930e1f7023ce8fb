"""What is said at the start: where, what, how many threads, the GIL, and how to stop."""

from __future__ import annotations

import os
import platform
import socket
import sys
import sysconfig
from typing import TYPE_CHECKING

from .version import __version__
from .worker import Server, gil_enabled

if TYPE_CHECKING:
    from collections.abc import Sequence

_EVERYWHERE = ("0.0.0.0", "::")


def start_message(
    server: Server,
    name: str,
    kind: str,
    notes: Sequence[str] = (),
    *,
    workers: int = 0,
    gil: bool | None = None,
) -> str:
    """The lines that the command prints once `server`, which has sockets, accepts connections.

    `name` is how the application was named, `kind` is what it is, such as `wsgi`, or `asgi` and
    something behind a comma; `notes` are lines of their own. `workers` is how many processes serve
    beside this one, and `gil` whether the GIL is on there.
    """
    lines = [f"threadwell {__version__} serves {name} ({kind})"]
    lines += places(server)
    lines += made_up_certificate(server)
    pool = (
        _loops(server)
        if kind.partition(",")[0] == "asgi"
        else _plural(server.config.thread_count(), "thread")
    )
    if workers:
        pool = f"{_plural(workers, 'worker')} of {pool}"
    lines.append(f"{pool}, Python {platform.python_version()}, {gil_state(gil)}")
    lines += gil_advice(gil)
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
    """`GIL on`, or `GIL off`; of this process, if `gil` does not say."""
    return "GIL on" if (gil_enabled() if gil is None else gil) else "GIL off"


def gil_advice(gil: bool | None = None) -> list[str]:
    """How to get rid of a GIL that a free-threaded Python has switched on again; else nothing."""
    if gil is None:
        gil = gil_enabled()
    # sys.flags does not tell before Python 3.14
    chosen = "1" in (os.environ.get("PYTHON_GIL"), getattr(sys, "_xoptions", {}).get("gil"))
    if chosen or not gil or not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return []
    return [
        "This Python can do without the GIL, but a module that was imported switched it on:",
        "the RuntimeWarning above names the module, and PYTHON_GIL=0 keeps the GIL off",
    ]


def made_up_certificate(server: Server) -> list[str]:
    """Where the authority behind `--cert adhoc` is found, for who wants to trust it."""
    if not server.config.tls.cert:
        return []
    path = server.authority_file
    if path is None:
        return ["The certificate is made up for this run, so clients will warn of it"]
    return [
        "The certificate is made up, so clients will warn of it unless they trust the one in",
        str(path),
    ]


def metrics_notes(urls: Sequence[str]) -> list[str]:
    """Lines about where metrics are served."""
    return [f"Metrics at {url}{'' if url.startswith('unix:') else '/metrics'}" for url in urls]


def places(server: Server, path: str = "") -> list[str]:
    """Where `server` listens, a text for each of its sockets. `path` is put behind an URL."""
    found = []
    for url, name in zip(server.urls, server.addresses, strict=True):
        if not isinstance(name, tuple):
            found.append(url)
        elif name[0] in _EVERYWHERE:
            found.append(f"{_both(url + path)} (and on every other address of this machine)")
        else:
            found.append(url + path)
    return found


def _both(url: str) -> str:
    """The IPv4 address too where a socket for all of IPv6 has that: not everybody's IPv6 works."""
    if "[::1]" in url and socket.has_dualstack_ipv6():
        return f"{url.replace('[::1]', '127.0.0.1')} and {url}"
    return url
