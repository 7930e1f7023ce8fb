"""A native `SyncApp`: one function from a request to a response, without WSGI in between.

Run it with `threadwell examples/sync_app` and open the address that is printed.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from threadwell import FileBody, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_TICKS = 100
LARGEST_ECHO = 64 * 1024
HTML = [("Content-Type", "text/html; charset=utf-8")]
TEXT = [("Content-Type", "text/plain; charset=utf-8")]
JSON = [("Content-Type", "application/json")]
EVENTS = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]

INDEX = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>threadwell: a SyncApp</title>
<h1>A SyncApp</h1>
<ul>
  <li><a href="/request">The request</a>, as JSON</li>
  <li><a href="/events">Events</a>, one after the other</li>
  <li><a href="/source">The source</a> of this application</li>
</ul>
</html>
"""


def app(request: Request) -> Response:
    """The application. Each request runs on a thread; nothing here is asynchronous."""
    page = PAGES.get((request.method, request.path))
    if page is None:
        return Response(404, TEXT, b"There is no such page.\n")
    return page(request)


def index(_request: Request) -> Response:
    """A page of HTML. A body of bytes is sent at once, with its length."""
    return Response(200, HTML, INDEX)


def show_request(request: Request) -> Response:
    """All that a `Request` knows."""
    facts = {
        "method": request.method,
        "target": request.target,
        "path": request.path,
        "query": parse_qs(request.query),
        "version": request.version,
        "scheme": request.scheme,
        "client": request.client,
        "server": request.server,
        "headers": request.headers,
    }
    return Response(200, JSON, json.dumps(facts, indent=2).encode())


def events(request: Request) -> Response:
    """Server-sent events, `/events?to=3&pause=0.5`: an iterator as the body is a stream."""
    query = parse_qs(request.query)
    try:
        last = min(int(query.get("to", ["3"])[0]), MOST_TICKS)
        pause = min(max(float(query.get("pause", ["0.5"])[0]), 0), 1)
    except ValueError:
        return Response(400, TEXT, b"to and pause are numbers.\n")
    return Response(200, EVENTS, ticks(last, pause))


def ticks(last: int, pause: float) -> Iterator[bytes]:
    """`last` events, `pause` seconds between them."""
    for number in range(1, last + 1):
        if number > 1:
            time.sleep(pause)
        yield f"data: {number}\n\n".encode()


def source(_request: Request) -> Response:
    """This file: a `FileBody` is sent by the kernel, and closed by the server."""
    descriptor = os.open(__file__, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    return Response(200, TEXT, FileBody(descriptor, 0, size))


def echo(request: Request) -> Response:
    """What was posted, under the type that it came with."""
    body = request.read()
    if len(body) > LARGEST_ECHO:
        return Response(413, TEXT, b"That is too much to send back.\n")
    content_type = request.header("content-type", "application/octet-stream")
    return Response(200, [("Content-Type", content_type)], body)


PAGES = {
    ("GET", "/"): index,
    ("GET", "/request"): show_request,
    ("GET", "/events"): events,
    ("GET", "/source"): source,
    ("POST", "/echo"): echo,
}
