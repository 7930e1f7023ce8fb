"""CPU seconds a GB of request bodies, beside granian if it is installed: see README.md."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

GB = 10**9
MIB = 1024 * 1024
APP = """
def app(environ, start_response):
    size = 0
    while block := environ["wsgi.input"].read(65536):
        size += len(block)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d octets." % size]
"""
THREADWELL = "-m threadwell app:app --bind 127.0.0.1:{port} --threads 4"
GRANIAN = (
    "-m granian app:app --interface wsgi --host 127.0.0.1 --port {port} --workers 1"
    " --blocking-threads 4 --no-ws --log-level error"
)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connect(port: int) -> socket.socket:
    """A connection to a server that may not listen yet."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 60)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit(f"no server listens on port {port}")


@contextlib.contextmanager
def serving(command: str) -> Iterator[tuple[int, int]]:
    """Run a server; yields its port and the id of its process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "app.py").write_text(APP)
        words = [sys.executable, *command.format(port=port).split()]
        server = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            connect(port).close()
            yield port, server.pid
        finally:
            server.terminate()
            server.wait(30)


def upload(sock: socket.socket, size: int, chunk: int) -> None:
    """Send one body, in chunks of `chunk` octets or with a length, and read the answer."""
    block = bytes(chunk or MIB)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    if chunk:
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        framed = b"%x\r\n%b\r\n" % (chunk, block)
        many = max(MIB // chunk, 1)
        for left in range(size // chunk, 0, -many):
            sock.sendall(framed * min(many, left))
        sock.sendall(b"0\r\n\r\n")
    else:
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % size)
        for left in range(size, 0, -len(block)):
            sock.sendall(block[:left])
    answer = b""
    while b" octets." not in answer:
        answer += sock.recv(4096)
    received = re.search(rb"([0-9]+) octets\.", answer)
    assert received is not None
    assert int(received[1]) == size, answer


def uploads(port: int, total: int, size: int, chunk: int) -> None:
    """Send `total` octets over two connections at a time."""
    share = max(total // size // 2, 1)

    def client() -> None:
        with connect(port) as sock:
            for _ in range(share):
                upload(sock, size, chunk)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def used(pid: int) -> float:
    """The CPU seconds of the threads of a process and of its children, to the nanosecond."""
    spent = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            spent += int((task / "schedstat").read_text().split()[0])
            for child in (task / "children").read_text().split():
                spent += round(used(int(child)) * 1e9)
    return spent / 1e9


def cost(command: str, total: int, size: int, chunk: int) -> float:
    """CPU seconds for a GB, once the server has had a few bodies."""
    with serving(command) as (port, pid):
        uploads(port, 4 * size, size, chunk)
        before = used(pid)
        uploads(port, total, size, chunk)
        return (used(pid) - before) / total * GB


def main() -> None:
    """Measure the servers in turn, and print the median of the rounds for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--total", type=int, default=1024, help="MiB for each measurement")
    parser.add_argument("--sizes", default="1,4,64", help="of the bodies, in MiB")
    parser.add_argument("--chunk", type=int, default=8192, help="octets of a chunk")
    options = parser.parse_args()
    servers = {"threadwell": THREADWELL}
    if importlib.util.find_spec("granian"):
        servers["granian"] = GRANIAN
    print("MiB  framing  " + "  ".join(servers))
    for size in map(int, options.sizes.split(",")):
        for framing, chunk in (("length", 0), ("chunked", options.chunk)):
            spent: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, command in servers.items():
                    spent[name].append(cost(command, options.total * MIB, size * MIB, chunk))
            median = {name: statistics.median(each) for name, each in spent.items()}
            figures = "  ".join(f"{median[name]:{len(name)}.2f}" for name in servers)
            print(f"{size:3}  {framing:7}  {figures}", flush=True)


if __name__ == "__main__":
    main()
