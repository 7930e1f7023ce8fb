"""The applications of budget.py. An octet on standard input makes callgrind write its counts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

from threadwell.worker.logs import access_log
from threadwell.worker.metrics import counters
from threadwell.worker.threads import leader_follower

Environ = dict[str, Any]


def plain(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Answer with a line of text, with ten small blocks, or with the body of the request."""
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        length = ("Content-Length", str(len(body)))
        start_response("200 OK", [("Content-Type", "application/octet-stream"), length])
        return [body]
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"chunk %d\n" % number for number in range(10))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]


def make_flask() -> Any:
    """Make a Flask application with a route of JSON."""
    from flask import Flask, Response, jsonify

    app = Flask("budget")

    @app.get("/items/<int:number>")
    def item(number: int) -> Response:
        return jsonify(message="Hello, world!", number=number)

    return app


def make_django() -> Any:
    """Make a Django project with a route of JSON, and the middleware of a new project that needs no
    database."""
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application

    middleware = (
        "security.SecurityMiddleware",
        "common.CommonMiddleware",
        "csrf.CsrfViewMiddleware",
        "clickjacking.XFrameOptionsMiddleware",
    )
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="budget_urls",
        SECRET_KEY="a key",
        INSTALLED_APPS=[],
        MIDDLEWARE=[f"django.middleware.{name}" for name in middleware],
    )
    return get_wsgi_application()


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
