"""User instructions, or system calls, that a request costs: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

CONNECTIONS = 8
FEW, MANY = 100, 600
APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]
"""
BESIDE = """
async def app(scope, receive, send):
    raise NotImplementedError
"""
HEAD = """\
Host: 127.0.0.1\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, deflate, br\r
"""
FETCH = "Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"


def head(number: int, varied: bool) -> bytes:
    """The head of request `number`."""
    if varied:
        text = (
            f"GET /items/{number}?page={number % 17} HTTP/1.1\r\n{HEAD}{FETCH}"
            f"Cookie: sessionid={number}; csrftoken=abc{number * 7}\r\n"
            f'If-None-Match: "{number * 13}"\r\n\r\n'
        )
    else:
        text = (
            f"GET / HTTP/1.1\r\n{HEAD}Cookie: csrftoken=abcdefghijklmnop;"
            f" sessionid=0123456789abcdef0123456789abcdef\r\n{FETCH}Sec-Fetch-Site: none\r\n\r\n"
        )
    return text.encode()


def total(requests: int, varied: bool, strace: bool, hybrid: bool, threads: int) -> int:
    """What a server costs from its start to its end, with so many requests between."""
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "hello.py").write_text(APP)
        (here / "beside.py").write_text(BESIDE)
        out = here / "out"
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        if strace:
            tool = ["strace", "-f", "-c", "-o", str(out)]
        command = [*tool, sys.executable, "-m", "threadwell", "hello:app", "--bind", "127.0.0.1:0"]
        command += ["--threads", str(threads), *(["--asgi", "beside:app"] if hybrid else [])]
        server = subprocess.Popen(
            command, cwd=here, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert server.stdout is not None
        port = 0
        while not port:
            line = server.stdout.readline()
            match = re.search(r"http://127\.0\.0\.1:([0-9]+)", line)
            port = int(match[1]) if match else 0
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        for number in range(requests):
            client = clients[number % CONNECTIONS]
            client.sendall(head(number, varied))
            answer = b""
            while not answer.endswith(b"Hello, world!"):
                answer += client.recv(65536)
        for client in clients:
            client.close()
        os.killpg(server.pid, signal.SIGTERM)  # strace does not pass it on
        server.communicate(timeout=60)
        text = out.read_text(errors="replace")
        if strace:
            return int(text.strip().splitlines()[-1].split()[3])
        found = re.search(r"^(?:summary|totals): ([0-9]+)", text, re.MULTILINE)
        assert found is not None
        return int(found[1])


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--varied", action="store_true", help="another head each time")
    parser.add_argument("--strace", action="store_true", help="count system calls")
    parser.add_argument("--hybrid", action="store_true", help="an ASGI application beside it")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    few, many = (
        total(requests, options.varied, options.strace, options.hybrid, options.threads)
        for requests in (FEW, MANY)
    )
    what = "system calls" if options.strace else "user instructions"
    print(f"{(many - few) / (MANY - FEW):,.1f} {what} a request")


if __name__ == "__main__":
    main()
