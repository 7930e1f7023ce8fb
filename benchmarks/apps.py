"""The WSGI applications that every server serves. Nothing here knows which server it is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

Environ = dict[str, Any]

#: Seconds between the blocks of an event stream, and how many blocks it has at most.
PAUSE, BLOCKS = 0.1, 3000


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


def service(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Answer like `plain`, and at other paths with events, the process id, or after some work."""
    path = environ["PATH_INFO"]
    if path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return _events()
    if path == "/pid":
        return _text(start_response, b"%d" % os.getpid())
    if path == "/work":
        return _text(start_response, b"%d" % sum(number % 7 for number in range(40_000)))
    return plain(environ, start_response)


def _events() -> Iterable[bytes]:
    for number in range(BLOCKS):
        yield b"data: %d\n\n" % number
        time.sleep(PAUSE)


def _text(start_response: Any, text: bytes) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


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
