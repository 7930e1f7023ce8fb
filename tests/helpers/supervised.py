"""The command with several processes, for tests: what it says can be waited for."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from .waiting import until

APP = """
import os, time
VERSION = {version!r}
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{VERSION}} {{os.getpid()}} {{environ['wsgi.multiprocess']}}".encode()]
"""


class Supervised:
    """`threadwell ARGUMENTS` among the files of `folder`. What it says is collected in `lines`."""

    def __init__(self, folder: Path, *arguments: str, ready: bool = True, **options: Any) -> None:
        command = [sys.executable, "-W", "error", "-m", "threadwell", *arguments]
        self.start([*command, "--log-level", "debug"], folder, **options)
        if ready:
            try:
                self.await_line("Ctrl-C")
            except BaseException:
                self.close()
                raise

    def start(self, command: list[str], folder: Path, **options: Any) -> None:
        """Run `command` among the files of `folder`."""
        options["env"] = {**os.environ, **options.get("env", {}), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def await_line(self, text: str, count: int = 1) -> None:
        """Wait until `text` was said `count` times."""
        deadline = time.monotonic() + 20
        while self.said(text) < count:
            alive = self._reader.is_alive() and time.monotonic() < deadline
            assert alive or self.said(text) >= count, f"no {text!r} in {''.join(self.lines)}"
            time.sleep(0.005)

    def said(self, text: str) -> int:
        """How many lines have had `text`."""
        return sum(text in line for line in self.lines)

    @property
    def port(self) -> int:
        """The first port."""
        match = re.search(r"https?://\S+:([0-9]+)", "".join(self.lines))
        assert match
        return int(match[1])

    def get(self, path: str = "/") -> str:
        """The body of an answer, over a connection of its own."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=20) as response:
            return str(response.read().decode())

    def ready_workers(self) -> list[int]:
        """The processes that have become workers, in the order of their becoming ready."""
        found = re.findall(r"worker \d+ \(process (\d+)\) is ready", "".join(self.lines))
        return [int(pid) for pid in found]

    def send(self, number: int) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, or with 0 only wait; the exit code."""
        if self.process.poll() is None:
            self.send(number)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def close(self) -> None:
        """End it if it still runs."""
        if self._reader.is_alive():
            self.end(signal.SIGQUIT)


Start = Callable[..., Supervised]


@contextmanager
def starting(folder: Path, app: str) -> Iterator[Start]:
    """`start(*arguments)`: the command on a free port, with two workers, ended behind the block.

    It serves `app.py` of `folder`, which is `app` if there is none yet.
    """
    with ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> Supervised:
            if not (folder / "app.py").exists():
                write(folder, app)
            args = list(arguments)
            if "--bind" not in args:
                args += ["--bind", "127.0.0.1:0"]
            if "--workers" not in args:
                args += ["--workers", "2"]
            server = Supervised(folder, *args, **options)
            stack.callback(server.close)
            return server

        yield start


def write(folder: Path, text: str) -> None:
    """The application, put there in one piece."""
    (folder / "new.tmp").write_text(text)
    (folder / "new.tmp").replace(folder / "app.py")


class Clients:
    """Threads that ask, each until it is over, and what they have counted."""

    def __init__(self, count: int) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        """What a thread does until `_over` is set."""
        raise NotImplementedError

    def more(self, count: int = 50) -> None:
        """Wait until so many more requests were answered."""
        wanted = self.answers + count
        until(lambda: self.answers >= wanted)


class Load(Clients):
    """Clients with connections that are kept alive, one request after the other."""

    def __init__(self, port: int, clients: int = 8, context: ssl.SSLContext | None = None) -> None:
        self.clients = clients
        #: Who answered the last request on a connection that failed.
        self.losers: list[int] = []
        self._port = port
        self._context = context
        #: The certificates that the server has shown.
        self.certificates: set[bytes | None] = set()
        #: Who has answered.
        self.pids: set[int] = set()
        super().__init__(clients)

    def _run(self) -> None:
        while not self._over.is_set():
            pid = 0
            with self._connect() as sock:
                while not self._over.is_set():
                    try:
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                        head, body = receive(sock)
                        if not head.startswith(b"HTTP/1.1 200 "):
                            raise ConnectionError(f"refused: {head!r}")
                    except OSError as error:
                        with self._lock:
                            self.failures.append(str(error))
                            self.losers.append(pid)
                        break
                    pid = int(body.split()[1])
                    with self._lock:
                        self.answers += 1
                        self.pids.add(pid)
                    if b"connection: close" in head.lower():
                        break

    def reach(self, processes: int) -> None:
        """Make further connections until so many processes have answered; the kernel chooses."""

        def ask() -> None:
            with self._connect() as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                pid = int(receive(sock)[1].split()[1])
            with self._lock:
                self.pids.add(pid)

        until(lambda: len(self.pids) >= processes or ask())

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), 20)
        if self._context is None:
            return sock
        wrapped = self._context.wrap_socket(sock, server_hostname="127.0.0.1")
        self.certificates.add(wrapped.getpeercert(binary_form=True))
        return wrapped


def receive(sock: socket.socket) -> tuple[bytes, bytes]:
    """One answer with a length. Raises `OSError` when it is not whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {data!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    match = re.search(rb"content-length: (\d+)", head.lower())
    assert match, head
    while len(body) < int(match[1]):
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {data!r}")
        body += more
    return head, body
