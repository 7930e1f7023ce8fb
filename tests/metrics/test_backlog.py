"""How many connections wait to be accepted."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from threadwell.worker.metrics.backlog import backlog_metrics

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it")


def test_connections_that_wait(tmp_path: Path) -> None:
    with socket.socket() as sock, socket.socket(socket.AF_UNIX) as unix:
        sock.bind(("127.0.0.1", 0))
        sock.listen(7)
        unix.bind(str(tmp_path / "s"))
        unix.listen(7)
        address = f'{{address="tcp://127.0.0.1:{sock.getsockname()[1]}"}}'
        clients = [socket.create_connection(sock.getsockname()) for _ in range(3)]
        try:
            waiting, size = backlog_metrics([sock, unix])
            assert waiting[0::3] == ("threadwell_backlog", [("", address, 3)])
            assert size[0::3] == ("threadwell_backlog_size", [("", address, 7)])
            sock.accept()[0].close()
            assert backlog_metrics([sock])[0].samples == [("", address, 2)]
        finally:
            for client in clients:
                client.close()


def test_what_tells_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        assert backlog_metrics([unix]) == []
    assert backlog_metrics([unix]) == []  # it is closed
