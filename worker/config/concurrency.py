"""Settings of what runs the application: threads, processes and event loops."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .option import MIB, option

# All are started at once: more would take the memory of any machine, and are a mistake in writing.
_MOST_THREADS = 10_000
_MOST_WORKERS = 1_000


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads serve requests, and how they wait for connections."""

    count: int = option(
        "threads",
        0,
        "Number of threads that run requests; 0 chooses 8, or on free-threaded Python twice the"
        " number of cores if that is more.",
        low=0,
        high=_MOST_THREADS,
    )
    max_streams: int = option(
        "max_streams",
        500,
        "Maximum number of long responses (streams and hijacked sockets) at once, each on an"
        " extra thread. Beyond it the answer is 503.",
        low=0,
    )
    poller: str = option(
        "poller",
        "auto",
        "How the server waits for connections: epoll (Linux), kqueue (macOS, BSD), or queue,"
        " which works everywhere and uses one thread to distribute connections. auto chooses the"
        " best one available.",
        choices=("auto", "epoll", "kqueue", "queue"),
    )


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes serve requests, and when one is replaced."""

    workers: int = option(
        "workers",
        1,
        "Number of worker processes under a supervisor. auto (or 0) starts one for each available"
        " core, or a single one on free-threaded Python. 1 serves in the started process, unless"
        " another option needs a supervisor.",
        low=0,
        high=_MOST_WORKERS,
        word="auto",
    )
    preload: bool = option(
        "preload",
        False,
        "Import the application once, in a process from which the workers are forked. They share"
        " its memory and start at once.",
    )
    # Milder than gunicorn's --timeout: the replacement starts first, and requests may still finish.
    worker_timeout: float = option(
        "worker_timeout",
        30.0,
        "Replace a worker that has accepted no request for this long, because all its threads are"
        " busy or it is stuck. 0 never replaces it.",
        unit="seconds",
        low=0.0,
    )
    # Milder than uWSGI's harakiri, which kills the process with all its requests.
    request_timeout: float = option(
        "request_timeout",
        0.0,
        "Abandon a request that runs for this long without having begun its response. On an event"
        " loop it is cancelled and answered with 503. A thread cannot be interrupted: the worker is"
        " drained and replaced, and the request is cut. 0 sets no limit.",
        unit="seconds",
        low=0.0,
    )
    # Below systemd's default of 90 seconds (TimeoutStartSec), so that our message is logged first.
    start_timeout: float = option(
        "start_timeout",
        60.0,
        "Time for a worker to import the application and become ready; then it is killed and its"
        " traceback is logged. A reload that takes longer is abandoned, and the old application"
        " keeps serving. 0 waits without limit.",
        unit="seconds",
        low=0.0,
    )
    max_requests: int = option(
        "max_requests",
        0,
        "Replace a worker after about this many requests; the count is checked once a second. 0"
        " never replaces it.",
        low=0,
    )
    max_requests_jitter: int = option(
        "max_requests_jitter",
        0,
        "Add a random number of requests, up to this one, to max_requests, so that workers are"
        " not all replaced at once.",
        low=0,
    )
    max_rss: int = option(
        "max_rss",
        0,
        "Replace a worker whose resident memory exceeds this size. 0 never replaces it.",
        unit="bytes",
        low=0,
    )
    max_age: float = option(
        "max_age",
        0.0,
        "Replace a worker that is this old. 0 never replaces it.",
        unit="seconds",
        low=0.0,
    )
    max_age_jitter: float = option(
        "max_age_jitter",
        0.0,
        "Add a random time, up to this one, to max_age, so that workers are not all replaced at"
        " once.",
        unit="seconds",
        low=0.0,
    )
    pid_file: str = option(
        "pid_file",
        "",
        "File for the id of the process that receives signals. It is written once the addresses"
        " are bound and removed at exit.",
    )
    user: str = option(
        "user",
        "",
        "User (name or number) to which worker processes switch before they import the"
        " application. The supervisor stays root to bind ports and read keys.",
    )
    group: str = option(
        "group", "", "Group to which worker processes switch. Empty chooses the group of the user."
    )

    def check(self) -> None:
        """Raises `ConfigError` for settings that make no sense together."""
        for name in ("max_requests", "max_age"):
            if getattr(self, f"{name}_jitter") and not getattr(self, name):
                raise ConfigError(f"{name}_jitter: this is added to {name}, which is 0; give both")

    @property
    def needs_supervisor(self) -> bool:
        """Whether serving in the process that was started would not do."""
        return bool(self.reason_for_supervisor)

    @property
    def reason_for_supervisor(self) -> str:
        """The option that needs a supervisor, `workers` if no other one does; empty without."""
        names = "preload max_requests max_rss max_age request_timeout user group".split()
        several = "workers" if self.workers != 1 else ""
        return next((name for name in names if getattr(self, name)), several)


@dataclass(frozen=True, slots=True)
class ASGI:
    """How ASGI applications run. Sync applications ignore these settings."""

    loop: str = option(
        "loop",
        "auto",
        "Event loop of an ASGI application: asyncio or uvloop. auto chooses uvloop where it is"
        " installed.",
        choices=("auto", "asyncio", "uvloop"),
    )
    loops: int = option(
        "loops",
        0,
        "Number of event loops of an ASGI application, each with its own thread and lifespan. 0"
        " chooses one for each core on free-threaded Python, else one; beside a sync application"
        " always one.",
        low=0,
        high=_MOST_WORKERS,
    )
    lifespan: str = option(
        "lifespan",
        "auto",
        "Whether to run the ASGI lifespan protocol. With on, an application that does not support"
        " it is refused; with auto it is served without it.",
        choices=("auto", "on", "off"),
    )
    root_path: str = option(
        "root_path",
        "",
        "Path under which a proxy serves an ASGI application, such as /api. It becomes root_path"
        " in the scope.",
    )
    # Off: Starlette sends a file by path wherever the server offers it, past the middleware that
    # waits for `http.response.body`.
    pathsend: bool = option(
        "asgi_pathsend",
        False,
        "Offer http.response.pathsend to ASGI applications, so that the server sends files by path."
        " Middleware that compresses or changes bodies then misses them, or fails.",
    )
    # The default of uvicorn and hypercorn.
    ws_message: int = option(
        "limit_ws_message",
        16 * MIB,
        "Maximum size of a WebSocket message after decompression. The connection closes with code"
        " 1009 as soon as a frame announces more.",
        unit="bytes",
        low=1,
    )
    ws_queue: int = option(
        "limit_ws_queue",
        32,
        "Maximum number of WebSocket messages that wait for the application. Reading pauses when"
        " it is reached.",
        low=1,
    )
    ws_ping: float = option(
        "ws_ping_interval",
        20.0,
        "Time between two pings on a WebSocket. 0 sends none.",
        unit="seconds",
        low=0.0,
    )
    ws_pong: float = option(
        "ws_ping_timeout",
        20.0,
        "Time for a client to answer a ping. Then the connection closes with code 1011.",
        unit="seconds",
        low=0.1,
    )
    ws_compression: str = option(
        "ws_compression",
        "deflate",
        "Compression offered to WebSocket clients: deflate (permessage-deflate), or off.",
        choices=("deflate", "off"),
    )
