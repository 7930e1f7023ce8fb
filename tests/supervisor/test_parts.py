"""The parts that several processes are made of, each by itself."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threadwell import ConfigError, ServerConfig, ThreadedServer
from threadwell.worker import Server
from threadwell.worker.asgi.event_loop import loop_count
from threadwell.worker.assembly import check
from threadwell.worker.supervisor import TRANSITIONS, IllegalPhase, Phase, Phased
from threadwell.worker.supervisor.forking import (
    Loaded,
    ServerSpec,
    describe_exit,
    failure_message,
)
from threadwell.worker.supervisor.generation import Child, ForkServer, Generation, Worker
from threadwell.worker.supervisor.pipe import LONGEST_TEXT, Pipe, pair
from threadwell.worker.supervisor.supervisor import Supervisor
from threadwell.worker.supervisor.worker_process import RecyclePolicy
from threadwell.worker.system import resources
from threadwell.worker.system.resources import resident_memory
from threadwell.worker.watchdog import Watchdog

from ..helpers.asgi_tools import answer, no_lifespan
from ..helpers.certificates import Authority
from ..helpers.waiting import until
from ..helpers.wire_client import Client

# ---- Phases -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", Phase)
@pytest.mark.parametrize("target", Phase)
def test_only_what_the_table_allows(source: Phase, target: Phase) -> None:
    thing = Phased()
    thing.phase = source
    if target in TRANSITIONS[source]:
        thing.become(target)
        assert thing.phase is target
    else:
        with pytest.raises(IllegalPhase, match=f"{source.value} -> {target.value}"):
            thing.become(target)
        assert thing.phase is source


# ---- The line between two processes --------------------------------------------------------


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    one, other = map(Pipe, pair())
    yield one, other
    one.close()
    other.close()


def test_messages_arrive_whole_and_in_order(pipes: tuple[Pipe, Pipe]) -> None:
    one, other = pipes
    assert other.receive() == []
    sent = [{"number": number, "text": "x" * number * 100} for number in range(20)]
    for message in sent:
        one.send(message)
    assert other.receive() == sent
    assert not other.ended
    one.send({"last": True})
    one.close()
    assert other.receive() == [{"last": True}]
    assert other.ended
    other.send({"nobody": "hears"})


def test_descriptors_go_along(pipes: tuple[Pipe, Pipe]) -> None:
    one, _ = pipes
    other = Pipe(pipes[1]._sock, descriptors=True)
    ends = [os.pipe() for _ in range(3)]
    for number, (_, write) in enumerate(ends):
        one.send({"number": number}, [write])
        os.close(write)
    assert [message["number"] for message in other.receive()] == [0, 1, 2]
    for read, _ in ends:
        fd = other.next_descriptor()
        assert not os.get_inheritable(fd)
        os.write(fd, b"!")
        os.close(fd)
        assert os.read(read, 10) == b"!"
        os.close(read)


def test_who_does_not_listen_stops_nobody(pipes: tuple[Pipe, Pipe]) -> None:
    one, other = pipes
    text = "x" * LONGEST_TEXT
    for _ in range(100):
        one.send({"text": text})
    received = other.receive()
    assert 0 < len(received) < 100
    assert all(message == {"text": text} for message in received)


# ---- How it ends, and what is said ----------------------------------------------------------


def test_how_a_process_ended() -> None:
    assert describe_exit(3) == "ended with code 3"
    assert describe_exit(-9) == "was ended by SIGKILL"
    assert describe_exit(-60) == "was ended by signal 60"


def test_what_is_said_of_a_failure() -> None:
    try:
        raise ValueError("x" * 2 * LONGEST_TEXT)
    except ValueError as error:
        told = failure_message(error)
    assert len(told["failed"]) == len(told["trace"]) == LONGEST_TEXT
    try:
        raise SystemExit
    except SystemExit as error:
        assert failure_message(error)["failed"] == "the application failed: SystemExit"


def test_the_more_are_lost_the_longer_it_is_waited_for() -> None:
    generation, delays = Generation(1), []
    for _ in range(14):
        generation.note_exit(child(generation), 1000)
        delays.append(max(generation.not_before - 1000, 0))
    assert delays[:5] == [0, 0, 0.25, 0.5, 1]
    assert delays == sorted(delays)
    assert delays[-1] == 30
    settled = child(generation)
    settled.ready_at = 1000
    generation.note_exit(settled, 1010)
    assert generation.failures == 0


def test_when_a_generation_has_failed() -> None:
    generation = Generation(1)
    for _ in range(2):
        generation.note_exit(child(generation), 0)
        assert not generation.has_failed()
    generation.note_exit(child(generation), 0)
    assert generation.has_failed()
    generation.become(Phase.SERVING)
    assert not generation.has_failed()


def test_a_worker_that_has_served_is_no_failed_start() -> None:
    """Requests can end it while its siblings still start."""
    generation = Generation(1)
    for _ in range(5):
        served = child(generation)
        served.ready_at = 1000
        generation.note_exit(served, 1000.5)
        assert not generation.has_failed()
    assert generation.not_before > 1000.5, "it is not restarted without a pause"
    for failed in (False, False, True):
        generation.note_exit(child(generation), 1001)
        assert generation.has_failed() is failed


def child(generation: Generation) -> Worker:
    ours, theirs = pair()
    theirs.close()
    pipe = Pipe(ours)
    pipe.close()
    return Worker(pipe, None, 1, generation)


def test_a_process_without_an_id_is_not_killed() -> None:
    one, other = pair()
    one.close()
    pipe = Pipe(other)
    pipe.close()
    Child(pipe, None).kill()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """One that was not started, with a generation that is to take over."""
    spec = ServerSpec(Loaded, Server, ServerConfig(), [])
    made = Supervisor(spec, 1, print, print)
    made._next = made._children.new_generation()
    yield made
    made._children._selector.close()
    made._signals.close()


def enlist(supervisor: Supervisor, pipe: Pipe) -> Worker:
    generation = supervisor._next
    assert generation is not None
    worker = Worker(pipe, 10**6, 1, generation)
    generation.workers.add(worker)
    return worker


def test_who_was_ready_before_it_heard_of_its_end_is_drained(
    supervisor: Supervisor, pipes: tuple[Pipe, Pipe]
) -> None:
    ours, theirs = pipes
    worker = enlist(supervisor, ours)
    worker.dismissed, worker.deadline = True, time.monotonic() + 2
    theirs.send({"ready": True, "name": "app", "kind": "wsgi", "gil": True})
    supervisor._on_message(worker)
    assert worker.phase is Phase.DRAINING
    assert worker.deadline > time.monotonic() + ServerConfig().timeouts.graceful
    assert theirs.receive() == [{"drain": True, "take_backlog": True}]


def test_who_has_failed_is_not_waited_for_long(
    supervisor: Supervisor, pipes: tuple[Pipe, Pipe]
) -> None:
    ours, theirs = pipes
    worker = enlist(supervisor, ours)
    worker.deadline = time.monotonic() + 60
    theirs.send({"failed": "it has no such module", "trace": ""})
    supervisor._on_message(worker)
    assert worker.deadline < time.monotonic() + 10


def test_who_takes_requests_may_seem_not_to_for_a_second(
    supervisor: Supervisor, pipes: tuple[Pipe, Pipe]
) -> None:
    supervisor._worker_timeout = 1.0
    worker = enlist(supervisor, pipes[0])
    worker.become(Phase.SERVING)
    worker.heartbeat_at = 1000.0
    worker.idle_for = 1.1  # its threads look up once a second
    supervisor._check_health(1001.9)
    assert not worker.hangs
    supervisor._check_health(1002.0)
    assert worker.hangs


def test_a_template_that_does_not_end_is_killed(
    supervisor: Supervisor, pipes: tuple[Pipe, Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadwell.worker.supervisor.children._FORK_SERVER_EXIT", 0.01)
    children, generation = supervisor._children, supervisor._next
    assert generation is not None
    # as one does that has a thread of the application's
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        generation.fork_server = fork_server = ForkServer(pipes[0], process.pid, generation)
        fork_server.become(Phase.SERVING)
        children._selector.register(fork_server.pipe, selectors.EVENT_READ, fork_server)
        children.detach_fork_server(generation)
        children.kill_all()
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, 0)


# ---- Wear ---------------------------------------------------------------------------------


def test_wear(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RecyclePolicy(ServerConfig()).due(10**9) is None
    config = ServerConfig.from_options(max_requests=10, max_requests_jitter=5)
    random.seed(1)
    limits = {
        next(n for n in range(100) if policy.due(n))
        for policy in map(RecyclePolicy, [config] * 100)
    }
    assert limits == set(range(10, 16))
    config = ServerConfig.from_options(max_rss=1)
    why, cause = RecyclePolicy(config).due(0) or ("", "")
    assert ("MiB" in why, cause) == (True, "max_rss")
    assert 5 << 20 < resident_memory() < 1 << 40


@pytest.mark.parametrize("name", ["max_requests", "max_age"])
def test_a_jitter_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}_jitter: this is added to {name}, which is 0"):
        check(ServerConfig.from_options(**{f"{name}_jitter": 5}))


def test_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("threadwell.worker.supervisor.worker_process.time.monotonic", lambda: now)
    random.seed(1)
    config = ServerConfig.from_options(max_age=60, max_age_jitter=30)
    policies = [RecyclePolicy(config) for _ in range(100)]
    now += 59
    assert not any(policy.due(0) for policy in policies)
    now += 16
    assert 20 < sum(policy.due(0) is not None for policy in policies) < 80
    now += 16
    assert {policy.due(0) for policy in policies} == {("it has reached its age", "max_age")}


# ---- Whether requests are taken -----------------------------------------------------------


def test_pulse() -> None:
    pool = SimpleNamespace(
        looked=0.0, full=False, doing=0, activity=lambda: pool.doing, is_full=lambda: pool.full
    )
    watchdog = Watchdog([pool])
    (probe,) = watchdog._probes
    started = probe._healthy_at

    def look(**facts: Any) -> bool:
        """Whether this look found that requests are taken."""
        vars(pool).update(facts)
        probe._healthy_at = 1.0
        watchdog.age()
        return probe._healthy_at >= started

    assert look(looked=1.0)
    assert not look(), "nobody looked after the poller"
    assert not look(looked=2.0, full=True), "all are inside a request"
    assert look(doing=1), "another one"
    assert not look()
    assert look(looked=3.0, full=False)


Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def test_a_crew_counts_its_requests_and_knows_when_it_is_full(
    serve: Serve, connect: Connect
) -> None:

    inside, go_on = threading.Semaphore(0), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            inside.release()
            go_on.wait(20)
        start_response("200 OK", [])
        return [b"well"]

    server = serve(app, threads=2)
    pool = server.pools[0]
    before = pool.activity()
    assert connect(server).get().body == b"well"
    assert pool.served() == 1
    assert pool.activity() != before
    clients = [connect(server) for _ in range(2)]
    for client in clients:
        until(lambda: not pool.is_full())  # an answer may be there before its thread is free
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert inside.acquire(timeout=10)
    assert pool.is_full()
    go_on.set()
    for client in clients:
        assert client.answer().body == b"well"
    until(lambda: not pool.is_full())
    assert pool.served() == 3


# ---- Idle connections of a server that stops -----------------------------------------------


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_a_request_that_was_on_its_way_is_answered(
    serve: Serve, connect: Connect, poller: str
) -> None:

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"well"]

    server = serve(app, poller=poller)
    idle, asking = connect(server), connect(server)
    for client in (idle, asking):
        assert client.get().header("connection") != "close"
    stopper = threading.Thread(target=server.stop, kwargs={"timeout": 20, "linger": 1.5})
    stopper.start()
    pool = server.pools[0]
    until(lambda: pool.poller.draining and not pool.poller.listeners)
    answer = asking.get()
    assert (answer.body, answer.header("connection")) == (b"well", "close")
    assert asking.closed()
    assert idle.closed()
    stopper.join(20)
    assert not stopper.is_alive()


async def loop_app(scope: Any, receive: Any, send: Any) -> None:
    await no_lifespan(scope)
    await answer(send, b"well")


def sync_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"well"]


kinds = pytest.mark.parametrize("app", [sync_app, loop_app], ids=["threads", "loop"])


@kinds
def test_the_first_request_of_a_new_connection_is_answered(
    serve: Serve, connect: Connect, app: Any
) -> None:
    """It was accepted, and its request may be on its way as any other."""
    server = serve(app)
    client, other = connect(server), connect(server)
    assert other.get().body == b"well"  # so the first was accepted, too
    stopper = threading.Thread(target=server.stop, kwargs={"timeout": 20, "linger": 1.5})
    stopper.start()
    until(lambda: refused(server.port))
    answered = client.get()
    assert (answered.body, answered.header("connection")) == (b"well", "close")
    stopper.join(20)
    assert not stopper.is_alive()


@kinds
def test_the_first_request_behind_a_long_handshake_is_answered(
    serve: Serve, connect: Connect, app: Any, tmp_path: Path
) -> None:
    """The idle connections are gone already when its handshake is done."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("server")
    server = serve(app, certfile=str(cert), keyfile=str(key))
    idle, client = connect(server), connect(server)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    client.sock.sendall(outgoing.read())
    incoming.write(client.sock.recv(65536))
    stopper = threading.Thread(target=server.stop, kwargs={"timeout": 20, "linger": 0.5})
    stopper.start()
    until(lambda: refused(server.port))
    time.sleep(1.2)  # longer than idle connections are kept
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            incoming.write(client.sock.recv(65536))
    client.sock.sendall(outgoing.read())
    time.sleep(0.2)  # the server has seen it, and there is no request yet
    tls.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.sock.sendall(outgoing.read())
    received = b""
    while not received.endswith(b"well"):
        data = client.sock.recv(65536)
        assert data, received
        incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            while block := tls.read(65536):
                received += block
    idle.close()
    stopper.join(20)
    assert not stopper.is_alive()


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return True
    return False


# ---- Cores --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000"}, 0),
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/elsewhere\n", {"cpu.max": "300000 100000"}, 3),
        (
            "4:memory:/m\n2:cpuacct,cpu:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "150000", "cpu/c/cpu.cfs_period_us": "100000"},
            1.5,
        ),
        (
            "2:cpu:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"},
            0,
        ),
        ("0::/\n", {"cpu.max": "nonsense"}, 0),
    ],
)
def test_the_quota_of_a_control_group(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert resources._quota(tmp_path / "root", tmp_path / "membership") == quota


@pytest.mark.parametrize(("quota", "expected"), [(0.0, 4), (2.9, 2), (0.5, 1), (64.0, 4)])
def test_available_cores(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {1, 2, 3, 7}, raising=False)
    monkeypatch.setattr(resources, "_quota", lambda *_paths: quota)
    assert resources.available_cores() == expected


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadwell.worker.config.available_cores", lambda: 6)
    config = ServerConfig.from_options(workers="auto")
    assert config.processes.needs_supervisor
    monkeypatch.setattr("threadwell.worker.asgi.event_loop.available_cores", lambda: 6)
    for gil, workers, threads, loops in ((True, 6, 8, 1), (False, 1, 12, 6)):
        monkeypatch.setattr("threadwell.worker.config.gil_enabled", lambda gil=gil: gil)
        monkeypatch.setattr("threadwell.worker.asgi.event_loop.gil_enabled", lambda gil=gil: gil)
        assert (config.worker_count(), config.thread_count(), loop_count(config)) == (
            workers,
            threads,
            loops,
        )
    assert not ServerConfig().processes.needs_supervisor


def test_a_socket_pair_is_not_inherited() -> None:
    for sock in pair():
        assert not sock.get_inheritable()
        assert sock.family == socket.AF_UNIX
        sock.close()
