"""What reloads, replacements and kills cost under constant load: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import trustme

WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]
"""
ASGI = """
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == "lifespan." + phase
            await send({"type": f"lifespan.{phase}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"Hello, world!"})
"""
# Longer than anything here takes: a request that is answered late is no failure.
PATIENCE = 120.0


class Server:
    """`threadwell hello:app` with two workers, and what it says."""

    def __init__(self, folder: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "threadwell", "hello:app", "--bind", "127.0.0.1:0"]
        command += ["--workers", "2", "--log-level", "debug", *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for("Ctrl-C")
        self.url = re.findall(r"https?://\S+", self.text)[0]
        self.port = int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, what: str, count: int = 1) -> None:
        """Until `what`, a pattern, was said `count` times."""
        until = time.monotonic() + PATIENCE
        while len(re.findall(what, self.text)) < count:
            if time.monotonic() > until or not self._reader.is_alive():
                sys.exit(f"the server did not say {what!r}:\n{self.text[-2000:]}")
            time.sleep(0.01)

    def busiest(self) -> int:
        """The process of the worker that has the most connections."""
        ready = set(re.findall(r"\(process (\d+)\) is ready", self.text))
        ready -= set(re.findall(r"\(process (\d+)\) (?:was )?ended", self.text))
        return max(map(int, ready), key=lambda pid: inside(pid, self.port))

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


class Load(NamedTuple):
    """What wrk has counted."""

    requests: int
    failed: int


@contextlib.contextmanager
def wrk(url: str, connections: int, loads: list[Load]) -> Iterator[None]:
    """Constant load while the block runs; then what became of it is in `loads`."""
    command = ["wrk", "-t1", f"-c{connections}", "-d1h", f"--timeout={PATIENCE:.0f}s", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1)
        yield
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGINT)
        text = process.communicate()[0]
    requests = re.search(r"(\d+) requests in", text)
    assert requests is not None, text
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    if errors:
        print(f"{url}: {errors[0]}", file=sys.stderr)
    loads.append(Load(int(requests[1]), failed + (int(bad[1]) if bad else 0)))


def inside(pid: int, port: int) -> int:
    """How many connections of `port` a process has: with wrk, each with a request on its way."""
    mine = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            mine.add(os.readlink(entry.path))
    count = 0
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        established = fields[3] in ("01", "08")  # or the client has just closed it
        if established and int(fields[1].rpartition(":")[2], 16) == port:
            count += f"socket:[{fields[9]}]" in mine
    return count


# ---- What is done to it -------------------------------------------------------------------


def hup(server: Server, turn: int) -> int:
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("The new application is served", turn)
    server.wait_for("ended with code 0", 2 * turn)
    return 0


def term(server: Server, turn: int) -> int:
    os.kill(server.busiest(), signal.SIGTERM)
    server.wait_for("ended with code 0", turn)
    return 0


def kill(server: Server, turn: int) -> int:
    pid = server.busiest()
    os.kill(pid, signal.SIGSTOP)  # or what is in it would change while it is counted
    lost = inside(pid, server.port)
    os.kill(pid, signal.SIGKILL)
    server.wait_for("was ended by SIGKILL", turn)
    server.wait_for("is ready", 2 + turn)
    # it gets its share of the connections; and what ends within a second is a crash loop
    time.sleep(1.2)
    return lost


def recycle(server: Server, turn: int) -> int:
    server.wait_for(r"Replacing worker .* requests", turn)
    server.wait_for("ended with code 0", turn)
    return 0


def run(
    name: str,
    act: Callable[[Server, int], int],
    options: argparse.Namespace,
    folder: str,
    *arguments: str,
) -> None:
    """A row of the table."""
    loads: list[Load] = []
    server = Server(folder, *arguments, *options.arguments)
    lost = 0
    try:
        with wrk(server.url, options.connections, loads):
            for turn in range(1, options.turns + 1):
                lost += act(server, turn)
    finally:
        server.end()
    requests, failed = loads[0]
    print(f"| {name} | {options.turns} | {requests} | {failed} | {lost} |", flush=True)


def run_tls(options: argparse.Namespace, folder: str) -> None:
    """The same, with another certificate each time, which new connections must see."""
    file = pathlib.Path(folder, "both.pem")
    authority = trustme.CA()
    shown = []

    def renew() -> str:
        made = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes()
        file.with_suffix(".new").write_bytes(made)
        file.with_suffix(".new").replace(file)
        return made.decode()

    def change(server: Server, turn: int) -> int:
        made = renew()
        hup(server, turn)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(context)
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as client,
        ):
            shown.append(ssl.DER_cert_to_PEM_cert(client.getpeercert(True) or b""))
        assert shown[-1] in made, "the old certificate"
        return 0

    renew()
    run("new certificate (HUP)", change, options, folder, "--certfile", "both.pem")
    assert len(set(shown)) == options.turns


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asgi", action="store_true", help="an ASGI application")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("arguments", nargs="*", help="more for the server, behind --")
    options = parser.parse_args()
    print("| what | times | requests | failed | in killed processes |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "hello.py").write_text(ASGI if options.asgi else WSGI)
        run("reload (HUP)", hup, options, folder)
        run("a worker gets TERM", term, options, folder)
        run("a worker is killed", kill, options, folder)
        run("--max-requests 1000", recycle, options, folder, "--max-requests", "1000")
        run_tls(options, folder)


if __name__ == "__main__":
    main()
