"""Control of a process that has no supervisor."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from ..net.backlog import accept_queue
from ..system.threads import start_thread
from .endpoint import Endpoint, Reply
from .protocol import Command, CommandError, Result
from .report import BOUNDS, ProcessReport
from .settings import shown_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .interfaces import Controlled

log = logging.getLogger("threadwell")

# Seconds between two looks at the requests under way.
_INTERVAL = 1.0
# Seconds for the thread to end.
_LAST_MOMENT = 1.0


class SingleProcess:
    """Carries out the commands for a `Server` that is on its own: an `endpoint.Handler`.

    One thread at a time calls it.
    """

    def __init__(self, server: Controlled, report: ProcessReport) -> None:
        self._server = server
        self._report = report

    def handle(self, command: Command, reply: Reply) -> None:
        """Carry out `command`. Raises `CommandError`."""
        verb, argument = command.verb, command.argument
        if verb == "status":
            reply(self._status())
        elif verb == "requests":
            found = self._report.requests()
            reply({**found, "requests": identified(found["requests"], os.getpid())})
        elif verb == "stack":
            reply(self._stack(argument))
        elif verb == "config":
            reply({"settings": shown_settings(self._server.config)})
        elif verb == "log-level":
            set_log_level(argument)
            reply(said(f"messages of {argument} and above are logged"))
        elif verb == "reopen":
            self._server.reopen_logs()
            reply(said("the access log was opened again"))
        elif verb == "drain":
            self._server.begin_stop()
            reply(said("the server finishes its requests, and ends"))
        elif verb == "reload":
            reply(self._reload())
        else:
            raise CommandError(
                f"{verb}: this is a single process; started with --workers 2 or with --preload, a"
                " supervisor could do that"
            )

    def _status(self) -> Result:
        one = {**self._report.status(), "pid": os.getpid(), "number": 1, "note": ""}
        return overview(
            pid=os.getpid(),
            supervised=False,
            state=one["state"],
            age=one["age"],
            wanted=1,
            urls=self._server.urls,
            listeners=self._server.listeners,
            workers=[one],
        )

    def _stack(self, argument: str) -> Result:
        pid, key = split_id(argument)
        if pid not in (0, os.getpid()):
            raise CommandError(f"stack: {pid} is not a process of this server")
        found = self._report.stacks(key)
        if key and not found["stacks"]:
            raise CommandError(no_such_request(argument))
        return {**found, "stacks": identified(found["stacks"], os.getpid())}

    def _reload(self) -> Result:
        if not self._server.config.tls.on:
            raise CommandError(
                "reload: a single process cannot load its application again; start it with"
                " --workers 2 or with --preload, or start it again"
            )
        if not self._server.reload_certificates():
            raise CommandError("reload: the certificates cannot be used; the log says why")
        return said("the certificates were read again; the application stays")


class ControlThread:
    """A thread that looks at the requests under way once a second, and serves an `Endpoint`.

    `tick` is what it calls each second. `close` ends it.
    """

    def __init__(self, tick: Callable[[], object], endpoint: Endpoint | None) -> None:
        self._tick = tick
        self._endpoint = endpoint
        self._woken, self._waker = socket.socketpair()
        if endpoint is not None:
            endpoint.wake_by(self._woken)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="threadwell-control", daemon=True)

    def start(self) -> None:
        """Raises `OSError` if the system has no thread left."""
        start_thread(self._thread)

    def _run(self) -> None:
        next_tick = time.monotonic()
        while not self._is_over.is_set():
            wait = max(next_tick - time.monotonic(), 0)
            if self._endpoint is not None:
                self._endpoint.poll(wait)
            else:
                self._is_over.wait(wait)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _INTERVAL
                try:
                    self._tick()
                except Exception:
                    log.exception("Checking the running requests met an internal error")

    def close(self) -> None:
        """End the thread, and close the endpoint. Any thread may call, once."""
        self._is_over.set()
        self._waker.send(b"!")
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_LAST_MOMENT)
        if self._endpoint is not None:
            self._endpoint.close()
        self._woken.close()
        self._waker.close()


# ---- For the supervisor too ---------------------------------------------------------------


def overview(
    *,
    pid: int,
    supervised: bool,
    state: str,
    age: float,
    wanted: int,
    urls: Sequence[str],
    listeners: Sequence[socket.socket],
    workers: list[dict[str, Any]],
) -> Result:
    """The result of `status`."""
    return {
        "pid": pid,
        "supervised": supervised,
        "state": state,
        "age": round(age, 3),
        "wanted": wanted,
        "urls": list(urls),
        "backlog": sum(queue.length for queue in map(accept_queue, listeners) if queue),
        "latency_bounds": list(BOUNDS),
        "workers": workers,
    }


def said(text: str) -> Result:
    """The result of a command that has nothing to show."""
    return {"message": text}


def split_id(text: str) -> tuple[int, str]:
    """The process (0 if it is not said) and the key in what a client calls a request."""
    pid, dot, key = text.partition(".")
    if pid.isascii() and pid.isdigit() and len(pid) < 10 and (dot or not key):
        return int(pid), key
    return 0, text


def no_such_request(text: str) -> str:
    """What to say where no request has this id."""
    return f"stack: no request {text[:80]!a} is under way; `requests` lists those that are"


def identified(rows: list[dict[str, Any]], pid: int) -> list[dict[str, Any]]:
    """The `rows` of a process with its id, also in the ids of requests."""
    return [{**row, "pid": pid, "id": f"{pid}.{row['id']}" if row["id"] else ""} for row in rows]


def set_log_level(level: str) -> None:
    """Log messages of `level` and above, in this process."""
    logging.getLogger("threadwell").setLevel(level.upper())
