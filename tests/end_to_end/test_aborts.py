"""Clients that leave in every state of a connection: nothing of them stays.

Each test aborts the connections of one kind, half of them by a reset, and compares what the process
has then with what it had before: tasks, threads, descriptors, temporary files, memory.
"""

from __future__ import annotations

import sys
from sysconfig import get_config_var

import pytest

from ..helpers.aborts import (
    FLASK_SOCK,
    HTTP2_KINDS,
    IMMORTAL_CLASSES,
    KINDS,
    SPARE,
    Abort,
    Counts,
    Server,
    leave,
    serving,
)
from ..helpers.certificates import Authority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")

ABORTED = 500
# In rounds, so that the most that is there at once does not depend on their number. With the first
# round caches fill, pools of threads grow, and the allocator gets its arenas.
ROUNDS = 5
# What stays grows with each round. What the allocator of free-threaded Python keeps comes and goes,
# and is back after so many rounds at most.
MOST_ROUNDS = 15 if get_config_var("Py_GIL_DISABLED") else ROUNDS
# How much the resident size may differ, in KiB.
MEMORY = 10 * 1024


def check_nothing_stays(server: Server, abort: Abort) -> None:
    for path in ("/", "/big"):  # a hybrid starts its loop, and each side its caches
        server.fetch(path)
    limits = server.counts()
    limits["threads"] += SPARE
    del limits["memory"]
    before: Counts = {}
    for done in range(1, MOST_ROUNDS + 1):
        for number in range(ABORTED // ROUNDS):
            leave(abort(server), number)
        after = server.counts_once_below(limits)
        before = before or after
        if done >= ROUNDS and after["memory"] <= before["memory"] + MEMORY:
            return
    pytest.fail(f"the memory grows: {before} became {after}")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind]])
def test_http1(kind: str, name: str) -> None:
    if kind == "flask" and name in FLASK_SOCK and IMMORTAL_CLASSES:
        pytest.skip("flask-sock makes classes, which this Python keeps")
    with serving(kind) as server:
        check_nothing_stays(server, KINDS[kind][name])


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in HTTP2_KINDS for name in HTTP2_KINDS[kind]]
)
def test_http2(kind: str, name: str, authority: Authority) -> None:
    with serving(kind, authority) as server:
        check_nothing_stays(server, HTTP2_KINDS[kind][name])
