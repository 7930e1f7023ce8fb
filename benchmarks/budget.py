"""What a request costs in user instructions, held against budget.toml: see benchmarks/README.md.

python benchmarks/budget.py             measures and compares; 1 if a case costs 5 % more
python benchmarks/budget.py --write     measures, and writes the figures of this build of Python
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import platform
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence

from budget_cases import CASES, Case

HERE = pathlib.Path(__file__).parent
BUDGET = HERE / "budget.toml"
TOLERANCE = 0.05
CONNECTIONS = 8
WARM_UP, FEW, MANY = 100, 50, 150
FIRST = 1000  # all numbers have as many digits
HEADING = """\
# User instructions a request, for each build of Python and each case. A build counts for itself:
# its compiler and the C library differ by more than what is looked for.
# Written by: python benchmarks/budget.py --write
"""


def build() -> str:
    """What the figures depend on beside the code: the build of Python, and the C library."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    names = {"--enable-optimizations": "PGO", "--with-lto": "LTO", "--enable-shared": "shared"}
    said = [name for option, name in names.items() if option in options]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        said.append("free-threaded")
    version = f"{platform.python_implementation()} {platform.python_version()}"
    parts = [version, *said, platform.python_compiler(), " ".join(platform.libc_ver())]
    return ", ".join([*parts, platform.machine()])


class Server:
    """threadwell under callgrind."""

    def __init__(self, app: str, options: Sequence[str], folder: str) -> None:
        self._out = pathlib.Path(folder) / "counts"
        self._parts = 0
        environment = {
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(HERE),
            # the C library would choose its functions by the processor
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX,-SSE4_2,-SSSE3,-ERMS",
        }
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self._out}"]
        command += ["--dump-before=getloadavg", sys.executable, "-m", "threadwell"]
        command += [f"budget_apps:{app}", "--bind", "127.0.0.1:0", "--threads", "4"]
        command += ["--keep-alive", "600", "--loop", "asyncio"]
        command += [option.format(folder=folder) for option in options]
        self._log = pathlib.Path(folder) / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        self.port = int(self._read(rb"http://127\.0\.0\.1:([0-9]+)"))

    def _read(self, pattern: bytes) -> bytes:
        """Read the server's lines up to one with `pattern`; its group, or all of it."""
        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, b""):
            if match := re.search(pattern, line):
                return match[match.lastindex or 0]
        raise RuntimeError("the server has ended:\n" + self._log.read_text(errors="replace"))

    def counted(self) -> int:
        """The instructions since the last call, or the start."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"!")
        self._read(rb"written")
        self._parts += 1
        text = self._out.with_name(f"{self._out.name}.{self._parts}").read_text(errors="replace")
        found = re.search(r"^(?:summary|totals): ([0-9]+)", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def end(self) -> None:
        """End the server; its work is done."""
        self.process.kill()
        self.process.communicate()


class Clients:
    """Connections that send in turn, one request at a time."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._socks = [self._connect() for _ in range(CONNECTIONS)]
        self._last = self._connect()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, 120)

    def send(self, case: Case, numbers: range) -> None:
        """Send these requests of `case`."""
        for number in numbers:
            index = number % CONNECTIONS
            if self._is_last(self._socks[index], case.request(number)):
                self._socks[index].close()
                self._socks[index] = self._connect()
        # what the server does after its last answer comes before this one
        self._is_last(self._last, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def _is_last(self, sock: socket.socket, request: bytes) -> bool:
        """Send `request` and read the response; whether it ends the connection."""
        sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive(sock)
        head, body = received.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)content-length: *([0-9]+)", head)
        while len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n"):
            body += self._receive(sock)
        if not re.search(rb"(?i)connection: *close", head):
            return False
        while sock.recv(65536):
            pass
        return True

    def _receive(self, sock: socket.socket) -> bytes:
        octets = sock.recv(65536)
        if not octets:
            raise RuntimeError("the server has closed a connection")
        return octets

    def close(self) -> None:
        for sock in (*self._socks, self._last):
            sock.close()


def measure(cases: Sequence[Case]) -> dict[str, int]:
    """The instructions that a request of each of `cases` costs, which have one application and the
    same options.

    Two batches are counted; what is in both beside their requests cancels out.
    """
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(cases[0].app, cases[0].options, folder)
        try:
            for case in cases:
                clients = Clients(server.port)
                first = FIRST
                counts = []
                for requests in (WARM_UP, FEW, MANY):
                    clients.send(case, range(first, first + requests))
                    first += requests
                    counts.append(server.counted())
                clients.close()
                measured[case.label] = round((counts[2] - counts[1]) / (MANY - FEW))
        finally:
            server.end()
    return measured


def compare(budget: dict[str, int], measured: dict[str, int]) -> bool:
    """Print the table; whether a case is over its budget."""
    over = False
    for label, count in measured.items():
        allowed = budget.get(label)
        if allowed is None:
            print(f"{label:32} {count:>11,}   not in the budget: not compared")
            continue
        change = count / allowed - 1
        verdict = ""
        if count > allowed * (1 + TOLERANCE):
            over, verdict = True, "  OVER THE BUDGET"
        elif count < allowed * (1 - TOLERANCE):
            verdict = "  lower it with --write"
        print(f"{label:32} {count:>11,} {allowed:>11,} {change:>+7.1%}{verdict}")
    return over


def write(budgets: dict[str, dict[str, int]]) -> None:
    """Write budget.toml."""
    tables = (
        "\n".join([f'["{name}"]', *(f'"{label}" = {count}' for label, count in figures.items())])
        for name, figures in sorted(budgets.items())
    )
    BUDGET.write_text(HEADING + "\n" + "\n\n".join(tables) + "\n")


def main() -> int:
    """Measure, then compare or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write budget.toml")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("The budget is not compared: there is no valgrind here (a Debian package)")
        return 2 if options.write else 0
    budgets = tomllib.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    here = build()
    if here not in budgets and not options.write:
        print(f"The budget is not compared: it has no figures for {here}; --write adds them")
        return 0
    servers: dict[tuple[str, tuple[str, ...]], list[Case]] = {}
    for case in CASES:
        if not options.case or case.name in options.case:
            servers.setdefault((case.app, case.options), []).append(case)
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, len(servers))) as pool:
        # the one with the most cases is begun first
        counts = pool.map(measure, servers.values())
    measured = {label: count for each in counts for label, count in each.items()}
    over = compare(budgets.get(here, {}), measured)
    if options.write:
        kept = budgets.get(here, {}) if options.case else {}
        write({**budgets, here: {**kept, **measured}})
        return 0
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
