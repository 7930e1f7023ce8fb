"""Resident memory of an idle connection, in KiB: see benchmarks/README.md."""

from __future__ import annotations

import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

from instructions import APP, HEAD

WARMING = 200


def ask(client: socket.socket, number: int) -> None:
    """One request, of a path and a session of its own, and its answer."""
    cookie = f"Cookie: csrftoken=abcdefghijklmnop; sessionid={number:032d}"
    client.sendall(f"GET /items/{number} HTTP/1.1\r\n{HEAD}{cookie}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"Hello, world!"):
        answer += client.recv(4096)


def resident(pid: int) -> int:
    """The resident memory of a process, in KiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+([0-9]+)", status)
    assert match is not None
    return int(match[1])


def main() -> None:
    """Print what a connection takes before and after its first request."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "hello.py").write_text(APP)
        command = [sys.executable, "-m", "threadwell", "hello:app", "--bind", "127.0.0.1:0"]
        command += ["--threads", "4", "--limit-connections", str(2 * count + WARMING)]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        port = 0
        while not port:
            match = re.search(r"http://127\.0\.0\.1:([0-9]+)", server.stdout.readline())
            port = int(match[1]) if match else 0
        warm = [socket.create_connection(("127.0.0.1", port)) for _ in range(WARMING)]
        for number in range(5 * WARMING):
            ask(warm[number % WARMING], number)
        before = resident(server.pid)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        time.sleep(1)
        silent = resident(server.pid)
        for number, client in enumerate(clients):
            ask(client, number)
        time.sleep(1)
        asked = resident(server.pid)
        print(f"{(silent - before) / count:.2f} KiB each, {(asked - before) / count:.2f} KiB asked")
        for client in [*warm, *clients]:
            client.close()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
