"""Database connections under Django: at most one a thread, and none that is left."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ...helpers.process import Script, script
from ...helpers.wire_client import Client

pytest.importorskip("django")

REQUESTS = 10_000
THREADS = 16
_PATIENCE = 30

# ---- A cluster of PostgreSQL's -------------------------------------------------------------


def _program(name: str) -> str:
    """`initdb` and `pg_ctl` are nowhere on the path in Debian."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else "")


class Cluster:
    """A PostgreSQL of the tests' own, on a unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # it does not run as root
        self._prefix: list[str] = []
        if os.getuid() == 0:
            names = [entry.pw_name for entry in pwd.getpwall()]
            user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(folder, user)
            self._prefix = ["runuser", "-u", user, "--"]

    def start(self) -> None:
        self._run("initdb", "-U", "threadwell", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nmax_connections = 50\nlisten_addresses = ''\n")
            settings.write(f"unix_socket_directories = '{self.folder}'\n")
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        found = Path(_program(program)).resolve()
        command = [*self._prefix, found, "-D", self.folder / "data", *arguments]
        # the server that it starts holds its output open: not a pipe
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(
                command,
                check=False,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            output.seek(0)
            assert result.returncode == 0, output.read().decode()

    def connections(self) -> list[str]:
        """What the other clients of the database are at."""
        import psycopg

        place = f"host={self.folder} user=threadwell dbname=postgres application_name=asking"
        with psycopg.connect(place) as asking:
            found = asking.execute(
                "SELECT state FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND application_name <> 'asking'"
            ).fetchall()
        return [row[0] for row in found]

    def options(self) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "threadwell",
            "HOST": str(self.folder),
        }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not _program("initdb"):
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    # the path of a unix socket must be short, and every user must get there
    with tempfile.TemporaryDirectory(prefix="threadwell-") as folder:
        running = Cluster(Path(folder))
        running.start()
        try:
            yield running
        finally:
            running.stop()


# ---- Many clients --------------------------------------------------------------------------


@contextlib.contextmanager
def site_on(database: dict[str, Any], **server: Any) -> Iterator[Script]:
    options = {"bind": "127.0.0.1:0", "threads": THREADS, "graceful_timeout": 5, **server}
    with script("django_database.py", json.dumps({"database": database, "server": options})) as it:
        yield it


def stopped(site: Script) -> int:
    """Stop the server, but not the process; how many connections it has made."""
    process = site._process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def client_of(site: Script) -> contextlib.closing[Client]:
    sock = socket.create_connection(("127.0.0.1", site.port), _PATIENCE)
    return contextlib.closing(Client(sock))


def load(site: Script, requests: int, look: Callable[[], None] = lambda: None) -> None:
    """`requests` of them, from as many clients as there are threads; `look` now and then."""
    wrong: list[Any] = []

    def ask(first: int) -> None:
        with client_of(site) as client:
            # some at once, so that the server is never idle
            numbers = range(first, requests, THREADS)
            for at in range(0, len(numbers), 5):
                some = numbers[at : at + 5]
                for number in some:
                    client.send(f"GET /item/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                for number in some:
                    answer = client.answer()
                    if (answer.status, answer.body) != (200, f"item {number % 100}".encode()):
                        wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        look()
        threads[-1].join(0.2)
    for thread in threads:
        thread.join()
    assert wrong == []
    with client_of(site) as client:
        assert int(client.get("/total").body) == requests // 20


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- PostgreSQL ----------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_postgresql_under_load(cluster: Cluster) -> None:
    seen: list[int] = []
    with site_on({**cluster.options(), "CONN_MAX_AGE": 600}) as site:
        load(site, REQUESTS, lambda: seen.append(len(cluster.connections())))
        assert 0 < max(seen) <= THREADS
        # they are kept: one each, made once
        assert len(cluster.connections()) <= stopped(site) <= THREADS
        eventually(lambda: cluster.connections() == [])
        site.finish()


def test_postgresql_without_kept_connections(cluster: Cluster) -> None:
    with site_on(cluster.options()) as site:
        load(site, 200)
        eventually(lambda: cluster.connections() == [])
        assert stopped(site) >= 200
        site.finish()


@pytest.mark.parametrize("max_age", [0, 600])
def test_a_client_that_leaves_in_mid_stream(max_age: int, cluster: Cluster) -> None:
    with site_on({**cluster.options(), "CONN_MAX_AGE": max_age}, threads=2) as site:
        for _ in range(4):
            with client_of(site) as client:
                client.send(b"GET /rows HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.sock.recv(100)
        if not max_age:
            eventually(lambda: cluster.connections() == [])
        else:
            # kept for the next request, and not in the middle of anything
            eventually(lambda: set(cluster.connections()) == {"idle"})
        stopped(site)
        eventually(lambda: cluster.connections() == [])
        site.finish()


@pytest.mark.parametrize("how", ["", "?exit"])
def test_a_view_that_fails(how: str, cluster: Cluster) -> None:
    """Even one that Django has no answer for."""
    with site_on(cluster.options()) as site:
        with client_of(site) as client:
            assert client.get(f"/fail{how}").status == 500
            eventually(lambda: cluster.connections() == [])
            assert client.get("/total").body == b"0"
        stopped(site)


# ---- SQLite --------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_sqlite_under_load(tmp_path: Path) -> None:
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "database"),
        "CONN_MAX_AGE": 600,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
    with site_on(database) as site:
        load(site, REQUESTS)
        files = Path(f"/proc/{site._process.pid}/fd")
        assert _open(files, database["NAME"])
        assert stopped(site) <= THREADS
        assert not _open(files, database["NAME"])
        site.finish()


def _open(files: Path, name: Any) -> list[str]:
    found = []
    for file in files.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a client's, which has just left
            found.append(os.readlink(file))
    return [link for link in found if link.startswith(str(name))]
