"""HAProxy and nginx themselves in front, configured as docs/proxies.md has it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.certificates import Authority
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
# The address of the client; the proxies speak from 127.0.0.1.
CLIENT = "127.0.0.9"


def native(request: Request) -> Response:
    """Who asks, and how."""
    told = {
        "client": request.client[0],
        "peer": request.peer[0],
        "scheme": request.scheme,
        "server": request.server,
        "host": request.header("host"),
        "prefix": request.prefix,
        "path": request.path,
    }
    return Response(200, [], json.dumps(told).encode())


native.threadwell_interface = "sync"  # type: ignore[attr-defined]


@pytest.fixture
def front() -> Iterator[socket.socket]:
    """The socket that the proxy listens on: it inherits it, so that no port is guessed."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        sock.setblocking(False)  # nginx takes that for granted
        yield sock


@contextlib.contextmanager
def running(command: list[str], front: socket.socket, **environ: str) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    process = subprocess.Popen(
        command, pass_fds=[front.fileno()], env={**os.environ, **environ}, stderr=subprocess.PIPE
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert b"[ALERT]" not in said, said.decode()


def haproxy(folder: Path, front: socket.socket, mode: str, backend: str, bind: str = "") -> Any:
    config = folder / "haproxy.cfg"
    config.write_text(
        f"global\n  maxconn 100\n"
        f"defaults\n  mode {mode}\n  timeout connect 10s\n  timeout client 10s\n"
        f"  timeout server 10s\n"
        f"frontend front\n  bind fd@{front.fileno()} {bind}\n  default_backend app\n"
        f"backend app\n{backend}\n"
    )
    return running(["haproxy", "-db", "-f", str(config)], front)


def nginx(folder: Path, front: socket.socket, locations: str) -> Any:
    address, port = front.getsockname()
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;\n"
        "events {}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body;\n"
        f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n"
        f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
        f"server {{ listen {address}:{port};\n{locations}\n}} }}\n"
    )
    # as nginx hands its sockets on to its own successor
    return running(["nginx", "-c", str(config)], front, NGINX=f"{front.fileno()};")


def ask(front: socket.socket, fields: str = "", target: str = "/a") -> Any:
    raw = socket.create_connection(front.getsockname(), 20, source_address=(CLIENT, 0))
    with contextlib.closing(Client(raw)) as client:
        reply = client.get(target, headers=fields)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


FORGED = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: ftp\r\nForwarded: for=6.6.6.6\r\n"


def test_nginx(serve: Serve, front: socket.socket, tmp_path: Path) -> None:
    server = serve(native, trusted_proxies="127.0.0.1")
    location = f"""location / {{
        proxy_pass http://127.0.0.1:{server.port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }}"""
    with nginx(tmp_path, front, location):
        for fields in ("", FORGED):
            told = ask(front, fields)
            assert (told["client"], told["peer"], told["scheme"]) == (CLIENT, "127.0.0.1", "http")


def test_nginx_with_a_prefix(serve: Serve, front: socket.socket, tmp_path: Path) -> None:
    names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-prefix"]
    server = serve(native, trusted_proxies="127.0.0.1", forwarded_header=names)
    location = f"""location /shop/ {{
        proxy_pass http://127.0.0.1:{server.port}/;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Prefix /shop;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto https;
    }}"""
    with nginx(tmp_path, front, location):
        told = ask(front, FORGED + "X-Forwarded-Prefix: /evil\r\n", "/shop/a")
    assert (told["client"], told["scheme"]) == (CLIENT, "https")
    assert (told["prefix"], told["path"]) == ("/shop", "/a")


def test_haproxy(serve: Serve, front: socket.socket, tmp_path: Path) -> None:
    server = serve(native, trusted_proxies="127.0.0.1")
    backend = f"""  option forwardfor
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
  server one 127.0.0.1:{server.port} check"""
    with haproxy(tmp_path, front, "http", backend):
        for fields in ("", FORGED):
            told = ask(front, fields)
            assert (told["client"], told["peer"], told["scheme"]) == (CLIENT, "127.0.0.1", "http")


def test_haproxy_with_forwarded(serve: Serve, front: socket.socket, tmp_path: Path) -> None:
    server = serve(native, trusted_proxies="127.0.0.1", forwarded_header="forwarded")
    # what `option forwarded` does from 2.8 on
    backend = f"""  http-request set-header Forwarded for=%[src];proto=https;host=%[req.hdr(host)]
  server one 127.0.0.1:{server.port}"""
    with haproxy(tmp_path, front, "http", backend):
        for fields in ("", FORGED):
            told = ask(front, fields)
            assert (told["client"], told["scheme"], told["host"]) == (CLIENT, "https", "x")


@pytest.mark.parametrize(
    "version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"]
)
def test_haproxy_with_the_proxy_protocol(
    serve: Serve, front: socket.socket, tmp_path: Path, version: str
) -> None:
    server = serve(native, trusted_proxies="127.0.0.1", proxy_protocol=True)
    backend = f"  server one 127.0.0.1:{server.port} {version} check inter 100ms"
    with haproxy(tmp_path, front, "tcp", backend):
        for fields in ("", FORGED):
            told = ask(front, fields)
            assert (told["client"], told["peer"]) == (CLIENT, "127.0.0.1")
            assert (told["scheme"], told["server"]) == ("http", list(front.getsockname()))


def test_haproxy_that_ends_tls_says_so(serve: Serve, front: socket.socket, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("front")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    server = serve(native, trusted_proxies="127.0.0.1", proxy_protocol=True)
    backend = f"  server one 127.0.0.1:{server.port} send-proxy-v2-ssl"
    with haproxy(tmp_path, front, "tcp", backend, f"ssl crt {both}"):
        raw = socket.create_connection(front.getsockname(), 20, source_address=(CLIENT, 0))
        context = authority.trusting()
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
            told = json.loads(Client(sock).get().body)
    assert (told["client"], told["scheme"]) == (CLIENT, "https")
