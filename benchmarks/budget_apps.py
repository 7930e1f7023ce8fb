"""The applications of budget.py. An octet on standard input makes callgrind write its counts."""

from __future__ import annotations

import os
import threading
from typing import Any

# for the command line; budget.py puts this folder on the path
from apps import make_django, make_flask, plain  # noqa: F401

from threadwell.worker.logs import access_log
from threadwell.worker.metrics import counters
from threadwell.worker.threads import leader_follower


def make_asgi() -> Any:
    """Make an ASGI application that answers as `plain` does."""
    from threadwell.worker.asgi import writer

    # callgrind makes the time between two blocks long: how many leave together would depend on the
    # speed of this machine
    writer._BURST = 3600.0
    return answer


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """The application of `make_asgi`. It has no lifespan."""
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/plain")]
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(10):
            block = b"chunk %d\n" % number
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    body, more = b"", scope["method"] == "POST"
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    body = body or b"Hello, world!"
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
