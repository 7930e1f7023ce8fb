"""The worker class under a real gunicorn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]

from threadwell.gunicorn import ThreadWorker, trusted

from ..helpers.certificates import Authority
from ..helpers.supervised import APP, Load, Supervised, receive

Start = Callable[..., "Gunicorn"]

SLOW = """
import os, threading, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        print("in flight", flush=True)
        while not os.path.exists("go on"):
            time.sleep(0.01)
    if path == "/hang":
        print("hanging", flush=True)
        time.sleep(100)
    body = f"1 {os.getpid()} {environ['wsgi.url_scheme']} {environ['wsgi.multiprocess']}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "yes")])
    return [body.encode()]
"""

HOOKS = """
def post_worker_init(worker):
    worker.log.info("hook post_worker_init %s", worker.wsgi.__name__)
def pre_request(worker, req):
    worker.log.info("hook pre_request %s %s %s", req.method, req.path, dict(req.headers)["X-ASK"])
def post_request(worker, req, environ, resp):
    worker.log.info("hook post_request %s %s", environ["PATH_INFO"], resp.status)
def worker_exit(server, worker):
    worker.log.info("hook worker_exit")
def on_exit(server):
    server.log.info("hook on_exit")
"""


class Gunicorn(Supervised):
    """gunicorn with the worker class, on a free port."""

    def __init__(self, folder: Path, *arguments: str, ready: int = 1, **options: Any) -> None:
        command = [sys.executable, "-m", "gunicorn", "-k", "threadwell.gunicorn.ThreadWorker"]
        command += ["-b", "127.0.0.1:0", "--log-level", "info"]
        options["env"] = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
        self.start([*command, *arguments, "application:app"], folder, **options)
        if ready:
            self.await_line("Listening at")
            self.await_line("serves", ready)


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Start]:
    """`gunicorn(*arguments, app=SLOW, ready=1)`: a running gunicorn, ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, app: str = SLOW, **options: Any) -> Gunicorn:
            (tmp_path / "application.py").write_text(app)
            # what a test waits for: that a worker can be asked
            hook = 'def post_worker_init(worker):\n    worker.log.info("serves")\n'
            config = tmp_path / "gunicorn.conf.py"
            if not config.exists():
                config.write_text(hook)
            started = Gunicorn(tmp_path, *arguments, **options)
            stack.callback(started.close)
            return started

        yield start


def pid_of(answer: str) -> int:
    return int(answer.split()[1])


def ask(port: int, path: str, headers: dict[str, str] | None = None) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
    with urllib.request.urlopen(request, timeout=20) as response:
        return str(response.read().decode())


def test_several_workers_and_a_reload_under_load(gunicorn: Start) -> None:
    server = gunicorn("-w", "2", "--threads", "4", app=APP.format(version=1), ready=2)
    assert server.get().endswith("True")
    with Load(server.port) as load:
        load.more()
        for round_ in range(2):
            server.send(signal.SIGHUP)
            server.await_line("serves", 2 * (round_ + 2))
            server.await_line("Worker exiting", 2 * (round_ + 1))
            load.more()
    assert not load.failures
    assert server.end() == 0


def test_a_request_in_flight_is_answered_at_the_end(gunicorn: Start, tmp_path: Path) -> None:
    server = gunicorn("--threads", "2")
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(server.get("/slow")))
    thread.start()
    server.await_line("in flight")
    server.send(signal.SIGTERM)
    server.await_line("Handling signal: term")
    (tmp_path / "go on").touch()
    thread.join(20)
    assert server.end(0) == 0
    assert answers
    assert answers[0].startswith("1 ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_end(gunicorn: Start, number: int) -> None:
    server = gunicorn("--threads", "2")
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        server.await_line("hanging")
        assert server.end(number) == 0


def test_a_hung_worker_is_killed_and_a_busy_one_is_not(gunicorn: Start) -> None:
    server = gunicorn("--threads", "2", "--timeout", "2")
    pid = pid_of(server.get())
    clients = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
            client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
            if client is clients[0]:
                server.await_line("hanging")
                for _ in range(3):  # a thread is free, and so the worker is well
                    assert pid_of(server.get()) == pid
        server.await_line("hanging", 2)
        server.await_line(f"WORKER TIMEOUT (pid:{pid})")
        server.await_line("serves", 2)
    assert pid_of(server.get()) != pid


def test_max_requests(gunicorn: Start) -> None:
    server = gunicorn("--threads", "2", "--max-requests", "5")
    with Load(server.port, clients=2) as load:
        server.await_line("Autorestarting worker", 2)
        server.await_line("serves", 3)
    assert not load.failures


def test_hooks_and_the_access_log(gunicorn: Start, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS)
    format_ = '%(h)s "%(r)s" %(s)s %(B)s %({x-own}o)s %({x-ask}i)s %({wsgi.url_scheme}e)s'
    server = gunicorn("--access-logfile", "-", "--access-logformat", format_, ready=0)
    server.await_line("hook post_worker_init app")
    body = ask(server.port, "/path?query", {"X-Ask": "me"})
    server.await_line("hook pre_request GET /path me")
    server.await_line("hook post_request /path 200 OK")
    line = f'127.0.0.1 "GET /path?query HTTP/1.1" 200 {len(body)} yes me http'
    server.await_line(line)
    # what a hook raises costs the request: there is no X-Ask
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        ask(server.port, "/path")
    caught.value.close()
    server.await_line("hook post_request /path 500 Internal Server Error")
    assert server.end() == 0
    assert server.said("hook worker_exit")
    assert server.said("hook on_exit")


def test_tls(gunicorn: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    server = gunicorn("--certfile", str(cert), "--keyfile", str(key), "--threads", "2")
    context = authority.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", server.port), 20) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as client,
    ):
        assert client.selected_alpn_protocol() in (None, "http/1.1")
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" https " in receive(client)[1]
    # a handshake that never ends holds no thread
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
        url = f"https://127.0.0.1:{server.port}/"
        with urllib.request.urlopen(url, context=authority.trusting(), timeout=20) as response:
            assert response.status == 200


def test_a_unix_socket(gunicorn: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "g.sock")
    gunicorn("-b", f"unix:{path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(path)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert b" https " in receive(client)[1]


def test_who_may_say_that_it_was_tls(gunicorn: Start) -> None:
    server = gunicorn()
    assert " https " in ask(server.port, "/", {"X-Forwarded-Proto": "https"})
    assert " http " in ask(server.port, "/", {"X-Forwarded-Proto": "http"})
    both = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"}
    assert " http " in ask(server.port, "/", both)
    assert " http " in ask(server.port, "/")
    server = gunicorn("--forwarded-allow-ips", "192.0.2.0/24")
    assert " http " in ask(server.port, "/", {"X-Forwarded-Proto": "https"})


def test_who_is_trusted() -> None:
    is_trusted = trusted(["192.0.2.0/24", "::1"])
    assert [is_trusted(each) for each in ("192.0.2.9", "::1", "", "192.0.3.1")] == [
        *(True, True, True, False)
    ]
    assert trusted("*")("8.8.8.8")
    assert not trusted("")("8.8.8.8")


def test_options_that_gunicorn_has_no_word_for(
    gunicorn: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADWELL_STATIC", f"/static={tmp_path}")
    server = gunicorn()
    assert "def app" in ask(server.port, "/static/application.py")


@pytest.mark.parametrize(
    ("arguments", "app", "said"),
    [
        ([], "async def app(scope, receive, send): ...", "this one is asgi"),
        (["--http-protocols", "h2,h1"], SLOW, "http_protocols"),
        (
            ["--proxy-protocol", "auto"],
            SLOW,
            "takes it from THREADWELL_PROXY_PROTOCOL",
        ),
        (["--threads", "-1"], SLOW, "must be positive"),
    ],
)
def test_what_is_refused(gunicorn: Start, arguments: list[str], app: str, said: str) -> None:
    server = gunicorn(*arguments, app=app, ready=0)
    assert server.process.wait(20) != 0
    server.end()
    assert server.said(said), server.lines
    assert not server.said("Traceback")


def test_the_files_of_settings_are_checked_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THREADWELL_STATIC", f"/s={tmp_path / 'missing'}")
    with pytest.raises(RuntimeError, match=r"^static: "):
        ThreadWorker.check_config(Config(), None)


def test_the_loggers_are_gunicorn_s(gunicorn: Start) -> None:
    server = gunicorn(app="def app(environ, start_response): raise ValueError('oops')")
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        server.get()
    caught.value.close()
    server.await_line("ValueError: oops")
    failed = [line for line in server.lines if "The application failed on GET /" in line]
    assert len(failed) == 1
    assert re.search(rf"\[{os.getpid()}\]", failed[0]) is None
    assert re.match(r"\[\d{4}-.*\[ERROR\]", failed[0])
