"""Readiness of descriptors."""

from __future__ import annotations

import os
import socket

import pytest

from threadwell.worker.system import readiness


def test_octets_and_an_end_of_input() -> None:
    count = readiness.octet_count()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert not readiness.has_octets(ours.fileno(), count)
            theirs.send(b"x")
            assert readiness.has_octets(ours.fileno(), count)
            assert ours.recv(2) == b"x"
            assert not readiness.has_octets(ours.fileno(), count)
        assert not readiness.has_octets(ours.fileno(), count)
        assert readiness.has_input(ours.fileno())


def test_what_is_no_socket_shows_when_it_is_read() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    assert readiness.has_octets(reader, readiness.octet_count())


def test_a_system_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_FIONREAD", 0)
    count = readiness.octet_count()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not readiness.has_octets(ours.fileno(), count)
        theirs.send(b"x")
        assert readiness.has_octets(ours.fileno(), count)
