"""The applications of budget.py. An octet on standard input makes callgrind write its counts."""

from __future__ import annotations

import os
import threading

# for the command line; budget.py puts this folder on the path
from apps import make_django, make_flask, plain  # noqa: F401

from threadwell.worker.logs import access_log
from threadwell.worker.metrics import counters
from threadwell.worker.threads import leader_follower

# The deputy looks at the leader by the clock, and callgrind makes each call long: how often it
# looked would depend on the speed of this machine.
leader_follower._SHORTEST_TICK = leader_follower._LONGEST_TICK = 3600.0
# For the same reason requests would be beyond the bucket that has almost all of them, and the lines
# of a log would be written one by one.
counters.BUCKETS = (3600.0, *counters.BUCKETS[1:])
access_log._COLLECT_SECONDS = 3600.0
access_log._MOST_WAITING = 90


def _write_counts() -> None:
    while os.read(0, 1):
        os.getloadavg()  # callgrind writes its counts when this function of the C library is called
        os.write(1, b"written\n")


threading.Thread(target=_write_counts, daemon=True).start()
