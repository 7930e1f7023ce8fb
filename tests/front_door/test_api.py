"""`serve`, `make_server`, `Server` and `ThreadedServer`, as a program uses them."""

from __future__ import annotations

import functools
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import werkzeug

import threadwell
from threadwell import (
    ConfigError,
    Request,
    Response,
    Server,
    ServerConfig,
    ThreadedServer,
    make_server,
)
from threadwell.adapters import as_sync_app
from threadwell.worker import app_kind

from ..helpers.command import command
from ..helpers.wire_client import refuses

LOCAL = "127.0.0.1:0"


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"wsgi " + environ["PATH_INFO"].encode()]


def sync(request: Request) -> Response:
    return Response(200, [("Content-Type", "text/plain")], b"sync " + request.path.encode())


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def get(port: int, path: str = "/", host: str = "127.0.0.1") -> bytes:
    with closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().read()


def descriptors() -> set[str]:
    folder = "/proc/self/fd"
    listed = os.listdir(folder) if os.path.isdir(folder) else []
    # the one that the listing itself had is gone again
    return {name for name in listed if os.path.lexists(f"{folder}/{name}")}


@contextmanager
def same_descriptors() -> Iterator[None]:
    """No descriptor is open afterwards that was not open before (where that can be seen)."""
    before = descriptors()
    yield
    assert descriptors() - before == set()


@contextmanager
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


# ---- A server's life ----------------------------------------------------------------------


def test_context_manager() -> None:
    with ThreadedServer(wsgi, bind=LOCAL, threads=2) as server:
        assert server.port > 0
        assert server.server_port == server.port
        assert server.server_address == ("127.0.0.1", server.port)
        assert server.urls == [f"http://127.0.0.1:{server.port}"]
        assert get(server.port, "/x") == b"wsgi /x"
    assert refuses(server.port)


def test_context_manager_gives_the_server_with_its_own_type() -> None:
    made = ThreadedServer(wsgi, bind=LOCAL)
    with made as server:
        assert server is made


def test_nothing_is_left_open() -> None:
    with ThreadedServer(wsgi, bind=LOCAL, threads=2) as server:  # what is made once, is made now
        get(server.port)
    with same_descriptors():
        before = set(threading.enumerate())
        with ThreadedServer(wsgi, bind=LOCAL, threads=2) as server:
            get(server.port)
        assert set(threading.enumerate()) - before == set()


def test_error_inside_the_with_block_is_passed_on() -> None:
    with pytest.raises(KeyError), ThreadedServer(wsgi, bind=LOCAL) as server:
        raise KeyError
    assert refuses(server.port)


def test_stop_twice_and_from_other_threads() -> None:
    server = ThreadedServer(wsgi, bind=LOCAL, threads=2)
    server.start()
    stoppers = [threading.Thread(target=server.stop) for _ in range(4)]
    for thread in stoppers:
        thread.start()
    for thread in stoppers:
        thread.join(10)
        assert not thread.is_alive()
    server.stop()
    assert refuses(server.port)


def test_stop_before_start() -> None:
    server = ThreadedServer(wsgi, bind=LOCAL)
    server.stop()
    server.stop()


def test_bind_before_start() -> None:
    with same_descriptors():
        server = ThreadedServer(wsgi, bind=LOCAL)
        assert (server.port, server.urls) == (0, [])
        server.bind()
        port = server.port
        assert port
        server.bind()
        assert server.port == port
        server.stop()
    assert refuses(port)


def test_stop_from_within_a_request() -> None:
    def app(_request: Request) -> Response:
        threading.Thread(target=server.stop).start()
        return Response(200, (), b"bye")

    server = ThreadedServer(app, bind=LOCAL, graceful_timeout=5)
    server.start()
    assert get(server.port) == b"bye"
    server.stop()
    assert refuses(server.port)


def test_serve_forever_in_a_thread_and_shutdown() -> None:
    server = make_server("127.0.0.1", 0, wsgi, threads=2)
    assert isinstance(server, ThreadedServer)
    assert server.server_port > 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert get(server.server_port, "/y") == b"wsgi /y"
    finally:
        server.shutdown()
        thread.join(10)
    assert not thread.is_alive()
    server.server_close()
    assert refuses(server.server_port)


def test_clients_wait_between_bind_and_start() -> None:
    server = make_server("127.0.0.1", 0, sync)
    with socket.create_connection(server.server_address, 10) as client:
        client.sendall(b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with server:
            answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"sync /early")


def test_make_server_that_is_never_started() -> None:
    with same_descriptors():
        server = make_server("127.0.0.1", 0, wsgi)
        port = server.server_port
        server.server_close()
    assert refuses(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal(tmp_path: Path, number: int) -> None:
    (tmp_path / "run.py").write_text(
        "import signal, threading\n"
        "from threadwell import Response, serve\n"
        "def app(request):\n"
        "    return Response(200, [], b'served')\n"
        "before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)\n"
        "serve(app, bind='unix:sock', threads=1)\n"
        "assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before\n"
        "assert threading.active_count() == 1\n"
        "print('ended')\n"
    )
    command = [sys.executable, "run.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(tmp_path / "sock")):
                assert process.poll() is None
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"served")
        process.send_signal(number)
        assert process.communicate(timeout=10)[0].endswith(b"stopping\nended\n")
        assert process.returncode == 0


SERVING = """
import sys
from threadwell import Response, serve
def app(request):
    return Response(200, [], b"served")
if __name__ == "__main__":
    serve(OPTIONS, bind="127.0.0.1:0", metrics_bind="127.0.0.1:0")
    print("ended")
"""


@pytest.mark.parametrize("options", ["app", "app, workers=2", "'run:app', workers=2"])
def test_serve_says_what_the_command_says(tmp_path: Path, options: str) -> None:
    (tmp_path / "run.py").write_text(SERVING.replace("OPTIONS", options))
    with command(["run.py"], tmp_path) as running:
        url = running.url()
        name = "__main__:app" if options.startswith("app") else "run:app"
        assert f"serves {name} (sync)" in running.text
        assert "Metrics at http" in running.text
        assert urllib.request.urlopen(url, timeout=10).read() == b"served"
        assert running.end().endswith("stopping\nended\n")


@pytest.mark.parametrize("options", ["app", "app, workers=2"])
def test_serve_is_quiet_if_it_is_told(tmp_path: Path, options: str) -> None:
    (tmp_path / "run.py").write_text(
        SERVING.replace("OPTIONS", options + ", quiet=True").replace("127.0.0.1:0", "unix:sock", 1)
    )
    with command(["run.py"], tmp_path) as running:
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(tmp_path / "sock")):
                assert running.process.poll() is None
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"served")
        assert running.end() == "ended\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_as_soon_as_connections_are_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.py").write_text(
        "import os, signal\n"
        "from threadwell import ThreadedServer\n"
        "class Server(ThreadedServer):\n"
        "    def start(self):\n"
        "        super().start()\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "Server(lambda request: None, bind='127.0.0.1:0').serve_forever()\n"
        "print('ended')\n"
    )
    command = [sys.executable, "run.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=10, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


# ---- Where it listens ---------------------------------------------------------------------


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with ThreadedServer(sync, bind=f"unix:{path}") as server:
        assert (server.port, server.urls) == (0, [f"unix:{path}"])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"sync /u")
    assert not Path(path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux'")
def test_abstract_unix_socket(tmp_path: Path) -> None:
    name = f"@{tmp_path}"
    with ThreadedServer(sync, bind=f"unix:{name}") as server:
        assert (server.port, server.urls) == (0, [f"unix:{name}"])
        with pytest.raises(OSError, match="in use"):
            ThreadedServer(sync, bind=f"unix:{name}").start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name[1:])
            client.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"sync /u")
    with pytest.raises(ConfigError, match="unix_permissions: @a has none, because it has no file"):
        ThreadedServer(sync, bind="unix:@a", unix_permissions="600").start()


def test_unix_socket_of_a_server_that_was_never_started(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = make_server(f"unix:{path}", 0, sync)
    assert path.exists()
    server.server_close()
    assert not path.exists()


def test_unix_socket_left_behind_and_in_use(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert path.exists()
    with ThreadedServer(sync, bind=f"unix:{path}"):
        with pytest.raises(OSError, match="another server"):
            ThreadedServer(sync, bind=f"unix:{path}").start()
        assert path.exists()


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6() -> None:
    try:
        server = make_server("::1", 0, sync)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        assert server.urls == [f"http://[::1]:{server.port}"]
        assert get(server.port, "/6", "::1") == b"sync /6"


def test_several_binds(tmp_path: Path) -> None:
    binds = (LOCAL, f"unix:{tmp_path}/s", "localhost:0")
    with ThreadedServer(sync, bind=binds) as server:
        assert len(server.addresses) == 3
        for url in (server.urls[0], server.urls[2]):
            with urllib.request.urlopen(url + "/z", timeout=10) as response:
                assert response.read() == b"sync /z"
        assert server.port == server.addresses[0][1]


def test_sockets_that_listen_already() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in sockets]
    with Server(sync, ServerConfig(), sockets=sockets) as server:
        assert server.port == ports[0]
        assert [get(port) for port in ports] == [b"sync /", b"sync /"]
    assert all(refuses(port) for port in ports)


def test_busy_port_raises_and_leaks_nothing(tmp_path: Path) -> None:
    with busy_port() as port, same_descriptors():
        with pytest.raises(OSError, match="in use"):
            make_server("127.0.0.1", port, wsgi)
        first = f"unix:{tmp_path}/s"
        server = ThreadedServer(wsgi, bind=[LOCAL, first, f"127.0.0.1:{port}"])
        with pytest.raises(OSError, match="in use"):
            server.start()
        with pytest.raises(OSError, match="in use"), server:
            pass
        server.stop()
    assert not (tmp_path / "s").exists()


def test_bind_can_be_tried_again() -> None:
    with busy_port() as port:
        server = ThreadedServer(wsgi, bind=f"127.0.0.1:{port}")
        with pytest.raises(OSError, match="in use"):
            server.start()
    with server:
        assert get(port) == b"wsgi /"


@pytest.mark.parametrize(
    "options",
    [
        {"access_log": "/nowhere/at/all"},
        {"access_log": os.devnull, "log_format": "%Z"},
        {"poller": "kqueue" if sys.platform == "linux" else "epoll"},
    ],
    ids=str,
)
def test_failed_start_leaks_nothing(options: dict[str, Any]) -> None:
    with same_descriptors():
        refused = pytest.raises((ConfigError, OSError))
        with refused, ThreadedServer(wsgi, bind=LOCAL, **options):
            pass


def test_descriptor_that_cannot_listen_leaks_nothing() -> None:
    left, right = socket.socketpair()
    with left, right, same_descriptors(), pytest.raises((OSError, ConfigError)):
        ThreadedServer(wsgi, bind=f"fd://{left.fileno()}").bind()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"bind": "x"}, ConfigError),
        ({"bind": "a" * 70 + ":80"}, ConfigError),
        ({"bind": LOCAL, "backlog": 10**12}, ConfigError),
        ({"bind": "fd://99999"}, ConfigError),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_binds(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ThreadedServer(wsgi, **options).start()


def test_make_server_takes_no_bind() -> None:
    with pytest.raises(ConfigError, match="host and the port as arguments"):
        make_server("127.0.0.1", 0, wsgi, bind=LOCAL)


def test_unknown_option_and_no_application() -> None:
    with pytest.raises(ConfigError, match="did you mean threads"):
        ThreadedServer(wsgi, thread=3)
    for wrong in (None, 3, "app:app"):
        with pytest.raises(TypeError, match="is not an application"):
            ThreadedServer(wrong)


# ---- What kind of application -------------------------------------------------------------


class WSGIObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return wsgi(environ, start_response)


class SyncObject:
    def __call__(self, request: Request) -> Response:
        return sync(request)

    def method(self, request: Request) -> Response:
        return sync(request)


class WSGIClass:
    """An application as a class: its instances are the responses (PEP 3333)."""

    def __init__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        self.body = wsgi(environ, start_response)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)


class ASGIObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def marked(kind: str) -> Callable[..., Any]:
    def app(*args: Any) -> Any:
        return sync(*args) if kind == "sync" else wsgi(*args)

    app.threadwell_interface = kind  # type: ignore[attr-defined]
    return app


@functools.wraps(sync)
def wsgi_around_sync(environ: Any, start_response: Any) -> Any:
    return wsgi(environ, start_response)


@functools.wraps(wsgi)
def sync_around_wsgi(request: Request) -> Response:
    return sync(request)


@functools.wraps(ASGIObject.__call__)
def wsgi_around_asgi(environ: Any, start_response: Any) -> Any:
    return wsgi(environ, start_response)


@werkzeug.Request.application
def werkzeug_view(request: werkzeug.Request) -> werkzeug.Response:
    return werkzeug.Response(f"wsgi {request.path}")


class WrappedCall:
    @functools.wraps(sync)
    def __call__(self, environ: Any, start_response: Any) -> Any:
        return wsgi(environ, start_response)


SERVED = [
    (wsgi, "wsgi"),
    # what is called counts, not what it wraps
    (wsgi_around_sync, "wsgi"),
    (wsgi_around_asgi, "wsgi"),
    (werkzeug_view, "wsgi"),
    (WrappedCall(), "wsgi"),
    (sync_around_wsgi, "sync"),
    (WSGIObject(), "wsgi"),
    (WSGIClass, "wsgi"),
    (lambda environ, start_response, more=1: wsgi(environ, start_response), "wsgi"),
    (functools.partial(lambda extra, environ, start: wsgi(environ, start), 1), "wsgi"),
    (marked("wsgi"), "wsgi"),
    (lambda *args: wsgi(args[0], args[1]), "wsgi"),
    (sync, "sync"),
    (SyncObject(), "sync"),
    (SyncObject().method, "sync"),
    (lambda request, more=1: sync(request), "sync"),
    (functools.partial(lambda extra, request: sync(request), 1), "sync"),
    (marked("sync"), "sync"),
]


@pytest.mark.parametrize(("app", "kind"), SERVED)
def test_detection(app: Any, kind: str) -> None:
    assert app_kind(app) == kind
    with ThreadedServer(app, bind=LOCAL, threads=1) as server:
        assert get(server.port, "/a") == f"{kind} /a".encode()


@pytest.mark.parametrize(
    "app", [asgi, ASGIObject(), functools.partial(asgi), lambda scope, receive, send: None]
)
def test_asgi_is_no_sync_app(app: Any) -> None:
    with pytest.raises(TypeError, match=r"is an ASGI application.*a2wsgi"):
        as_sync_app(app)
    with pytest.raises(TypeError, match="is an ASGI application"):
        ThreadedServer(app, asgi_app=app)


def test_interface_decides() -> None:
    def either(*args: Any) -> Any:
        return sync(*args) if len(args) == 1 else wsgi(*args)

    for interface in ("wsgi", "sync"):
        with ThreadedServer(either, bind=LOCAL, threads=1, interface=interface) as server:
            assert get(server.port) == f"{interface} /".encode()
    with pytest.raises(TypeError, match="none of auto, wsgi, sync"):
        as_sync_app(wsgi, "uwsgi")
    with pytest.raises(TypeError, match="may be sync, wsgi or asgi"):
        as_sync_app(marked("other"))


def test_public_names() -> None:
    assert all(hasattr(threadwell, name) for name in threadwell.__all__)
    assert "asyncio" not in vars(threadwell)
    code = (
        "import sys, threadwell; print(*(name in sys.modules"
        " for name in ('asyncio', 'click', 'threadwell.worker.supervisor')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False False\n"
