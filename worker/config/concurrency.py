"""What runs the application: threads, processes, loops."""

from __future__ import annotations

from dataclasses import dataclass

from .option import MIB, option


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads serve, and how they wait."""

    count: int = option(
        "threads",
        0,
        "Threads that run requests; 0 chooses: 8, and on free-threaded Python at least twice the"
        " cores.",
        low=0,
    )
    max_streams: int = option(
        "max_streams",
        500,
        "Long responses (streams, hijacked sockets) at once, each on a thread of its own beside"
        " the others; beyond it 503.",
        low=0,
    )
    poller: str = option(
        "poller",
        "auto",
        "How connections wait: epoll (Linux), kqueue (macOS, BSD), or queue: one thread selects"
        " and distributes, everywhere.",
        choices=("auto", "epoll", "kqueue", "queue"),
    )


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes serve, and when one of them is replaced."""

    workers: int = option(
        "workers",
        1,
        "Processes that serve, under a supervisor; auto (or 0) is one for each core that this"
        " process may use, and on free-threaded Python a single one. 1 serves in the process that"
        " was started, unless one of the options below needs a supervisor.",
        low=0,
        word="auto",
    )
    preload: bool = option(
        "preload",
        False,
        "Import the application once, in a process that the workers are forked from: they share"
        " its memory and start at once.",
    )
    # As gunicorn's, but not as deadly: the successor comes first, and the requests may yet finish.
    worker_timeout: float = option(
        "worker_timeout",
        30.0,
        "A worker that has taken no request for so long, since all its threads are inside of one"
        " or it does not run at all, is replaced; 0 never.",
        unit="seconds",
        low=0.0,
    )
    # Less than the 90 seconds that systemd waits, which could not say why.
    start_timeout: float = option(
        "start_timeout",
        60.0,
        "For a worker to import the application and to become ready; then it is killed, with its"
        " traceback in the log. A reload is given up, and the old application serves on; 0 never.",
        unit="seconds",
        low=0.0,
    )
    max_requests: int = option(
        "max_requests",
        0,
        "Replace a worker after about so many requests (it is looked at once a second); 0 never.",
        low=0,
    )
    max_requests_jitter: int = option(
        "max_requests_jitter",
        0,
        "Up to so many requests more, by chance, so that not all workers are replaced at once.",
        low=0,
    )
    max_rss: int = option(
        "max_rss",
        0,
        "Replace a worker whose resident memory has grown beyond; 0 never.",
        unit="bytes",
        low=0,
    )
    pid_file: str = option(
        "pid_file",
        "",
        "Write the number of the process that takes signals to this file, when the addresses are"
        " bound, and remove it in the end.",
    )
    user: str = option(
        "user",
        "",
        "The user, a name or a number, that the worker processes become before they import the"
        " application. The supervisor stays root, to bind ports and to read keys.",
    )
    group: str = option("group", "", "The group that they become; without it, that of the user.")

    @property
    def needs_supervisor(self) -> bool:
        """Whether serving in the process that was started would not do."""
        return bool(self.reason_for_supervisor)

    @property
    def reason_for_supervisor(self) -> str:
        """The option that needs a supervisor, `workers` if no other one does; empty without."""
        names = ("preload", "max_requests", "max_rss", "user", "group")
        several = "workers" if self.workers != 1 else ""
        return next((name for name in names if getattr(self, name)), several)


@dataclass(frozen=True, slots=True)
class ASGI:
    """How ASGI applications are run. Sync applications need nothing of it."""

    loop: str = option(
        "loop",
        "auto",
        "Event loop of an ASGI application: asyncio, uvloop, or auto: uvloop where installed.",
        choices=("auto", "asyncio", "uvloop"),
    )
    loops: int = option(
        "loops",
        0,
        "Event loops of an ASGI application, each on a thread and with a lifespan of its own; 0"
        " chooses: one, and on free-threaded Python one a core, but one beside a sync application.",
        low=0,
    )
    lifespan: str = option(
        "lifespan",
        "auto",
        "Whether an ASGI application is told of start and stop: on refuses one that does not"
        " support it, auto serves that too.",
        choices=("auto", "on", "off"),
    )
    root_path: str = option(
        "root_path", "", "Path under which a proxy serves an ASGI application, such as /api."
    )
    # As uvicorn and hypercorn.
    ws_message: int = option(
        "limit_ws_message",
        16 * MIB,
        "Largest WebSocket message, after inflation; beyond it close code 1009.",
        unit="bytes",
        low=1,
    )
    ws_queue: int = option(
        "limit_ws_queue",
        32,
        "WebSocket messages that wait for the application before no more are read.",
        low=1,
    )
    ws_ping: float = option(
        "ws_ping_interval",
        20.0,
        "Time between two pings of a WebSocket; 0 sends none.",
        unit="seconds",
        low=0.0,
    )
    ws_pong: float = option(
        "ws_ping_timeout",
        20.0,
        "For a client to answer a ping; then close code 1011.",
        unit="seconds",
        low=0.1,
    )
    ws_compression: str = option(
        "ws_compression",
        "deflate",
        "Compression that a WebSocket's client may choose: deflate (permessage-deflate), or off.",
        choices=("deflate", "off"),
    )
