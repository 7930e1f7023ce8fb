"""Clients of HTTP/2 that request much and take nothing: the memory of the server is bounded."""

from __future__ import annotations

import contextlib
import sys

import pytest
from h2.settings import SettingCodes

from ..helpers.certificates import Authority
from ..helpers.http2_client import Http2Client
from ..helpers.process import script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")

CLIENTS = 5
REQUESTS = 100
# In KiB. A GB was requested. The budget of the process is 16 MiB; beside it is one response of
# each connection, those on their way, and what the allocator of free-threaded Python keeps.
MEMORY = 200 * 1024
# See `test_aborts`: that allocator then gives unused pages back at once.
PURGE = {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_ABANDONED_PAGE_PURGE": "1"}


def memory(client: Http2Client) -> int:
    return int(client.fetch("/memory").body)


@pytest.mark.parametrize("kind", ["loop", "threads", "streams"])
def test_memory(authority: Authority, kind: str) -> None:
    cert, key = authority.issue("stalled")
    with (
        script("stalled_server.py", kind, str(cert), str(key), **PURGE) as running,
        contextlib.ExitStack() as stack,
    ):

        def connect() -> Http2Client:
            client = Http2Client(running.port, authority.trusting())
            return stack.enter_context(contextlib.closing(client))

        other = connect()
        before = memory(other)
        for _ in range(CLIENTS):
            client = connect()
            client.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
            for _ in range(REQUESTS):
                client.get()
            client.settle()
        # connections take turns for the threads: with each answer every client had its turn
        sizes = [memory(other) for _ in range(REQUESTS)]
        assert max(sizes) <= before + MEMORY
