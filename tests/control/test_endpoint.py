"""The control socket itself: nobody else can use it, and no client holds up another."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ServerConfig, ThreadedServer
from threadwell.control_client import ControlClient, ControlError
from threadwell.worker import ConfigError, Request, Response
from threadwell.worker.control.protocol import (
    LONGEST_COMMAND,
    VERBS,
    CommandError,
    checked,
    encode_command,
    parse,
)

from ..helpers.control import ask
from ..helpers.waiting import until


def app(request: Request) -> Response:
    return Response(200, [], b"ok")


@pytest.fixture
def server(path: Path) -> Iterator[ThreadedServer]:
    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}") as server:
        yield server


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(str(path))
    return sock


def line_of(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        data += sock.recv(65536)
    found: dict[str, Any] = json.loads(data)
    return found


# ---- Who may connect ----------------------------------------------------------------------


def test_the_file_is_for_its_owner_and_gone_at_the_end(path: Path) -> None:
    before = os.umask(0)
    try:
        with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


_AS_NOBODY = """
import os, socket, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
        sock.sendall(b'{"v": 1, "verb": "status"}\\n')
        print(sock.recv(100))
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two")
def test_another_user_is_refused_twice() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "control.sock")

        def as_nobody() -> str:
            command = [sys.executable, "-S", "-c", _AS_NOBODY, str(path)]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}"):
            assert as_nobody().strip() == "PermissionError"
            path.chmod(0o666)  # as on systems that ignore the permissions of sockets
            assert as_nobody().strip() in ("b''", "ConnectionResetError", "BrokenPipeError")
            assert ask(path, "status")["state"] == "serving"


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "9000", "/run/x.sock", "fd://3", "unix:@x"])
def test_only_a_unix_socket(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^control: .*unix"):
        ThreadedServer(app, bind="127.0.0.1:0", control=address).bind()


def test_one_address_for_two_things(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control: .* is an address of bind already"):
        ThreadedServer(app, bind=f"unix:{path}", control=f"unix:{path}").bind()


def test_a_stale_file_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}"):
        second = ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}")
        with pytest.raises(ConfigError, match=r"control: cannot listen .* another server"):
            second.start()
        assert ask(path, "status")["state"] == "serving"


def test_what_is_no_socket_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ConfigError, match="control: cannot listen"):
        ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}").start()
    assert path.read_text() == "precious"


# ---- Clients ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"x" * 1024 * 1024, b"x" * 1024 * 1024 + b"\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n"],
    ids=["long", "long-line", "http", "binary"],
)
def test_garbage_ends_that_client_alone(server: ThreadedServer, path: Path, sent: bytes) -> None:
    with ControlClient(str(path)) as other, connect(path) as sock:
        try:
            sock.sendall(sent)
        except OSError:
            pass  # it was closed before all was sent
        answer = line_of(sock)
        assert answer["ok"] is False
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # what it has sent was not read
        assert other.ask("status")["state"] == "serving"


def test_a_wrong_command_does_not_end_the_connection(server: ThreadedServer, path: Path) -> None:
    with connect(path) as sock:
        sock.sendall(b'{"v": 2, "verb": "status"}\n')
        assert "version 1" in line_of(sock)["error"]
        sock.sendall(encode_command("nonsense", []))
        assert "there is no such verb" in line_of(sock)["error"]
        sock.sendall(encode_command("status", []))
        assert line_of(sock)["result"]["state"] == "serving"


def test_a_stuck_client_holds_up_nobody(server: ThreadedServer, path: Path) -> None:
    with connect(path) as stuck, connect(path) as silent, connect(path) as half:
        stuck.setblocking(False)
        half.sendall(b'{"v": 1, "ver')
        try:  # many commands, and no answer is read
            while True:
                stuck.send(encode_command("config", []) * 20)
        except BlockingIOError:
            pass
        for _ in range(20):
            assert ask(path, "status")["state"] == "serving"
        half.sendall(b'b": "status"}\n')
        assert line_of(half)["ok"]
        assert silent.fileno() >= 0


def test_many_commands_at_once_are_answered_in_order(server: ThreadedServer, path: Path) -> None:
    with connect(path) as sock:
        sock.sendall(b"".join(encode_command("recycle", [str(n)]) for n in range(200)))
        sock.sendall(encode_command("status", []))
        lines = sock.makefile("rb")
        errors = [json.loads(lines.readline()) for _ in range(200)]
        assert not any(each["ok"] for each in errors)
        assert json.loads(lines.readline())["result"]["state"] == "serving"


def test_a_crowd_of_silent_clients_leaves_room(server: ThreadedServer, path: Path) -> None:
    crowd = [connect(path) for _ in range(100)]
    assert ask(path, "status")["state"] == "serving"
    for sock in crowd:
        sock.close()


def test_random_octets(server: ThreadedServer, path: Path) -> None:
    generator = random.Random(14)
    honest = [encode_command(verb, ["1"] * bool(VERBS[verb].argument)) for verb in VERBS]
    honest = [line for line in honest if b"drain" not in line and b"log-level" not in line]
    for _ in range(200):
        line = bytearray(generator.choice(honest) * generator.randint(1, 3))
        for _ in range(generator.randint(0, 6)):
            place = generator.randrange(len(line))
            change = generator.choice(("flip", "cut", "double"))
            if change == "flip":
                line[place] = generator.randrange(256)
            elif change == "cut":
                del line[place:]
                line += b"\n"
            else:
                line[place:place] = line[: generator.randrange(300)]
        with connect(path) as sock:
            sock.sendall(bytes(line))
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert ask(path, "status")["state"] == "serving"


def test_the_end_while_clients_are_connected(path: Path) -> None:
    server = ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}")
    server.start()
    threads = threading.active_count()
    with connect(path) as sock:
        assert ask(path, "drain")["message"]
        assert sock.recv(1) == b""
    server.stop()
    until(lambda: threading.active_count() < threads)
    with pytest.raises(ControlError, match="no such socket"):
        ask(path, "status")


# ---- Commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "arguments", "text"),
    [
        ("nonsense", [], "no such verb"),
        ("status", ["1"], "takes no argument"),
        ("workers", [], "give N"),
        ("workers", ["x"], "is not a number"),
        ("workers", ["0"], "not between 1 and 1000"),
        ("workers", ["1001"], "not between 1 and 1000"),
        ("recycle", ["-1"], "is not a number"),
        ("recycle", ["1", "2"], "takes PID only"),
        ("log-level", ["loud"], "is not one of debug"),
    ],
)
def test_wrong_commands(verb: str, arguments: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        checked(verb, arguments)


def test_every_verb_can_be_written() -> None:
    good = {"N": "2", "PID": "17", "ID": "17.t3.4", "LEVEL": "debug", "": ""}
    for verb, known in VERBS.items():
        arguments = [good[known.argument]] if known.argument else []
        line = encode_command(verb, arguments)
        assert len(line) < LONGEST_COMMAND
        assert parse(line) == checked(verb, arguments)


def test_nothing_is_there_without_the_option() -> None:
    assert not ServerConfig().tracks_requests()
    with ThreadedServer(app, bind="127.0.0.1:0") as server:
        assert server.observers.report is None
        assert not [each for each in threading.enumerate() if each.name == "threadwell-control"]
