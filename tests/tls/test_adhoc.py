"""Certificates that the server makes for local use."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from threadwell import (
    ThreadedServer,
)

from ..helpers.wire_client import Client
from .files import app, mistake, session_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, where the user has it on Linux."""
    pytest.importorskip("trustme", reason="trustme has no wheels here", exc_type=ImportError)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("threadwell.worker.tls.adhoc.sys.platform", "linux")
    return tmp_path / "threadwell"


def trusting(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=path)
    return context


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_adhoc_is_the_same_after_a_restart(
    serve: Serve, connect_tls: Connect, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(app, cert="adhoc") as server:
        authority = server.authority_file
        assert authority == cache / "localhost-ca.pem"
        client = connect_tls(server, trusting(authority))
        assert client.get().body == b"https"
        first = session_of(client).getpeercert(True)
    assert mode(cache) == 0o700
    assert {path.name: mode(path) for path in cache.iterdir()} == {
        "localhost-ca.pem": 0o600,
        "localhost.pem": 0o600,
    }
    assert b"KEY" not in authority.read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "trustme", None)  # not needed any more
    again = connect_tls(serve(app, cert="adhoc"), trusting(authority))
    assert session_of(again).getpeercert(True) == first


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "dev.example"])
def test_adhoc_is_for_the_local_names_and_those_that_are_bound(cache: Path, name: str) -> None:
    from threadwell.worker.tls import adhoc

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    hosts = ["dev.example", "localhost", "bad_name", "fe80::1%eth0"]
    adhoc.load(context, hosts)
    authority = adhoc.authority_file(hosts)
    assert authority is not None
    ours, theirs = socket.socketpair()

    def echo() -> None:
        with context.wrap_socket(theirs, server_side=True) as sock:
            sock.sendall(sock.recv(1))

    thread = threading.Thread(target=echo)
    thread.start()
    with ours, trusting(authority).wrap_socket(ours, server_hostname=name) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    thread.join()


def test_adhoc_leaves_out_a_name_that_cannot_be_in_a_certificate(cache: Path) -> None:
    from threadwell.worker.tls import adhoc

    for host in ("ab--cd", "a..b", "x" * 64, "0.0.0.0", ""):
        adhoc.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), [host])
        assert adhoc.authority_file([host]) is not None


def test_adhoc_makes_another_for_other_names_and_after_a_year(cache: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    from threadwell.worker.tls import adhoc

    adhoc.load(context)
    adhoc.load(context, ["dev.example"])
    assert len(list(cache.glob("*-ca.pem"))) == 2
    kept = cache / "localhost.pem"
    before = kept.read_bytes()
    adhoc.load(context)
    assert kept.read_bytes() == before
    old = time.time() - 366 * 86400
    os.utime(kept, (old, old))
    adhoc.load(context)
    assert kept.read_bytes() != before
    assert kept.read_bytes().endswith((cache / "localhost-ca.pem").read_bytes())


@pytest.mark.parametrize("spoil", ["readable", "edited", "foreign folder", "no folder"])
def test_adhoc_uses_nothing_that_others_could_have_touched(
    cache: Path, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threadwell.worker.tls import adhoc

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    adhoc.load(context)
    kept = cache / "localhost.pem"
    before = kept.read_bytes()
    if spoil == "readable":
        kept.chmod(0o644)
    elif spoil == "edited":
        kept.write_bytes(before[: len(before) // 2])
    elif spoil == "foreign folder":
        cache.chmod(0o777)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    adhoc.load(context)
    assert list(temporary.iterdir()) == []
    if spoil in ("readable", "edited"):
        assert kept.read_bytes() != before
        assert mode(kept) == 0o600
    else:
        assert kept.read_bytes() == before
        assert adhoc.authority_file() is None


def test_adhoc_without_trustme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "trustme", None)
    assert "pip install trustme" in mistake(cert="adhoc")
