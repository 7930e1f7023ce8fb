"""Certificates that are reloaded while clients come and go."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import (
    ThreadedServer,
)

from ..helpers.wire_client import Client
from .files import Files, app, session_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sync", {"poller": "auto"}),
        ("sync", {"poller": "queue"}),
        ("asgi", {"loops": 1}),
        ("asgi", {"loops": 2}),
        ("hybrid", {}),
    ],
)
def test_reload(
    serve: Serve,
    connect_tls: Connect,
    files: Files,
    tmp_path: Path,
    kind: str,
    options: dict[str, Any],
) -> None:
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"
    for source, target in zip((files.cert, files.key), pair, strict=True):
        shutil.copyfile(source, target)
    if kind == "hybrid":
        options["asgi_app"] = asgi
    served = asgi if kind == "asgi" else app
    server = serve(served, certfile=str(pair[0]), keyfile=str(pair[1]), **options)
    before = connect_tls(server)
    first = session_of(before).getpeercert(True)

    for source, target in zip(files.authority.issue("renewed"), pair, strict=True):
        shutil.copyfile(source, target)
    assert session_of(connect_tls(server)).getpeercert(True) == first
    assert server.reload_certificates()
    after = connect_tls(server)
    assert session_of(after).getpeercert(True) != first
    assert before.get().body == after.get().body == b"https"


def test_a_broken_certificate_leaves_the_old_one(
    serve: Serve, connect_tls: Connect, files: Files, tmp_path: Path, caplog: Any
) -> None:
    path = tmp_path / "cert.pem"
    shutil.copyfile(files.both, path)
    server = serve(app, certfile=str(path))
    first = session_of(connect_tls(server)).getpeercert(True)
    path.write_bytes(files.cert.read_bytes() + files.other_key.read_bytes())
    assert not server.reload_certificates()
    assert "The certificate was not reloaded; the old one stays in use: certfile: the key" in (
        caplog.text
    )
    client = connect_tls(server)
    assert session_of(client).getpeercert(True) == first
    assert client.get().body == b"https"


def test_reload_while_clients_come(serve: Serve, connect_tls: Connect, files: Files) -> None:
    server = serve(app, certfile=str(files.both), threads=2)
    done = threading.Event()

    def reload() -> None:
        while not done.is_set():
            server.reload_certificates()

    thread = threading.Thread(target=reload)
    thread.start()
    try:
        for _ in range(40):
            assert connect_tls(server).get().body == b"https"
    finally:
        done.set()
        thread.join()


def test_reload_without_tls_is_nothing(serve: Serve) -> None:
    server = serve(app)
    assert server.reload_certificates()
    assert server.urls[0].startswith("http://")
