"""The servers that are compared, and how each is started."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# In a folder of its own: the names beside this file are also those of packages.
SERVED = Path(__file__).resolve().parent / "served"
# Seconds for a server to take connections.
START = 60.0


class DoesNotStart(Exception):
    """A server takes no connections; the text is the last that it said."""


@dataclass(frozen=True)
class Server:
    """A server, and its command line for each suite that it can be asked by.

    A command is a line of words. `{port}`, `{certfile}` and `{keyfile}` are filled in.
    """

    name: str
    package: str
    commands: dict[str, str] = field(default_factory=dict)


_THREADWELL = "threadwell applications:{} --bind 127.0.0.1:{{port}}"
_WEBSOCKETS = _THREADWELL.format("asgi") + " --ws-ping-interval 0 --loop "
_TLS = " --certfile {certfile} --keyfile {keyfile}"
_UVICORN = "uvicorn applications:asgi --port {port} --log-level warning"
_HYPERCORN = "hypercorn applications:asgi --bind 127.0.0.1:{port}"
_GRANIAN = "granian applications:{} --interface {} --host 127.0.0.1 --port {{port}}"
_GRANIAN_TLS = " --ssl-certificate {certfile} --ssl-keyfile {keyfile}"
_GUNICORN = "gunicorn applications:{} --bind 127.0.0.1:{{port}} --worker-class {}"
_DAPHNE = "daphne applications:asgi --bind 127.0.0.1 --port {port} --verbosity 0"
# The Autobahn suite counts a ping that it did not ask for as a failure, and some of its cases take
# minutes: servers that ping by themselves are told to wait for an hour.
_HOUR = "3600"

SERVERS = (
    Server("threadwell, asyncio", "threadwell", {"autobahn": _WEBSOCKETS + "asyncio"}),
    Server("threadwell, uvloop", "threadwell", {"autobahn": _WEBSOCKETS + "uvloop"}),
    Server("threadwell, flask-sock", "threadwell", {"autobahn": _THREADWELL.format("flask_sock")}),
    Server(
        "threadwell, WSGI",
        "threadwell",
        {
            "http1": _THREADWELL.format("wsgi"),
            "http2": _THREADWELL.format("wsgi") + " --http2" + _TLS,
        },
    ),
    Server(
        "threadwell, ASGI",
        "threadwell",
        {
            "http1": _THREADWELL.format("asgi"),
            "http2": _THREADWELL.format("asgi") + " --http2" + _TLS,
        },
    ),
    Server(
        "uvicorn, websockets",
        "uvicorn",
        {"autobahn": f"{_UVICORN} --ws websockets --ws-ping-interval {_HOUR}"},
    ),
    Server(
        "uvicorn, wsproto",
        "uvicorn",
        {"autobahn": f"{_UVICORN} --ws wsproto --ws-ping-interval {_HOUR}"},
    ),
    Server("uvicorn, h11", "uvicorn", {"http1": _UVICORN + " --http h11"}),
    Server("uvicorn, httptools", "uvicorn", {"http1": _UVICORN + " --http httptools"}),
    Server(
        "hypercorn",
        "hypercorn",
        {"autobahn": _HYPERCORN, "http1": _HYPERCORN, "http2": _HYPERCORN + _TLS},
    ),
    Server(
        "granian, ASGI",
        "granian",
        {
            "autobahn": _GRANIAN.format("asgi", "asgi"),
            "http1": _GRANIAN.format("asgi", "asgi"),
            "http2": _GRANIAN.format("asgi", "asgi") + _GRANIAN_TLS,
        },
    ),
    Server("granian, WSGI", "granian", {"http1": _GRANIAN.format("wsgi", "wsgi")}),
    Server(
        "daphne",
        "daphne",
        {"autobahn": f"{_DAPHNE} --ping-interval {_HOUR}", "http1": _DAPHNE},
    ),
    Server(
        "gunicorn, gthread",
        "gunicorn",
        {
            "autobahn": _GUNICORN.format("flask_sock", "gthread") + " --threads 8",
            "http1": _GUNICORN.format("wsgi", "gthread") + " --threads 8",
        },
    ),
    Server(
        "gunicorn, ASGI",
        "gunicorn",
        {
            "autobahn": _GUNICORN.format("asgi", "asgi"),
            "http1": _GUNICORN.format("asgi", "asgi"),
        },
    ),
    Server(
        "waitress",
        "waitress",
        {"http1": "waitress-serve --listen=127.0.0.1:{port} applications:wsgi"},
    ),
    Server("cheroot", "cheroot", {"http1": "cheroot applications:wsgi --bind 127.0.0.1:{port}"}),
)

#: What the virtual environment of the servers gets, beside threadwell itself.
PACKAGES = (
    "uvicorn[standard]",
    "wsproto",
    "hypercorn",
    "granian",
    "daphne",
    "gunicorn",
    "waitress",
    "cheroot",
    "flask",
    "flask-sock",
    "trustme",
)


def free_port() -> int:
    """A port that nobody has now. Not every server says which one it has taken."""
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(server: Server, suite: str, binaries: Path, work: Path) -> Iterator[int]:
    """Run `server` for `suite` during the block; its port. Its output goes to a file in `work`.

    Raises `DoesNotStart`.
    """
    port = free_port()
    files = {"certfile": work / "server.pem", "keyfile": work / "server.key"}
    program, *arguments = server.commands[suite].format(port=port, **files).split()
    log = work / f"{server.name.replace(', ', '-')}-{suite}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [binaries / program, *arguments],
            cwd=SERVED,
            env={**os.environ, "PYTHONPATH": str(SERVED)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_for(process, port, log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    said = log.read_text("utf-8", "replace").strip().splitlines()
    raise DoesNotStart(said[-1] if said else f"exit code {process.returncode}")
