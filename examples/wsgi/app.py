"""A plain WSGI application, without a framework, that shows what the server does for one.

Run it with `threadwell examples/wsgi` and open the address that is printed.
"""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse

MOST_NUMBERS = 100
LARGEST_FORM = 64 * 1024
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

INDEX = Path(__file__).with_name("index.html")


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI application: one function for each path."""
    page = PAGES.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
    if page is None:
        return answer(start_response, "404 Not Found", "There is no such page.\n")
    return page(environ, start_response)


def index(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A page of HTML that leads to the others."""
    return answer(start_response, "200 OK", INDEX.read_text("utf-8"), HTML)


def show_environ(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """All that the application is told about a request."""
    lines = [f"{name} = {value!r}\n" for name, value in sorted(environ.items())]
    return answer(start_response, "200 OK", "".join(lines))


def stream(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A response that is sent while it is made: `/stream?to=5&pause=0.3`.

    It keeps its thread for as long as it lasts, and another thread takes the next requests.
    """
    query = parse_qs(environ["QUERY_STRING"])
    try:
        last = min(int(query.get("to", ["5"])[0]), MOST_NUMBERS)
        pause = min(max(float(query.get("pause", ["0.3"])[0]), 0), 1)
    except ValueError:
        return answer(start_response, "400 Bad Request", "to and pause are numbers.\n")
    start_response(
        "200 OK",
        [
            ("Content-Type", TEXT),
            ("Cache-Control", "no-store"),
            # else a browser waits for enough bytes to guess the type from
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
    return count(last, pause)


def count(last: int, pause: float) -> Iterator[bytes]:
    """The numbers up to `last`, a line each, `pause` seconds between them."""
    for number in range(1, last + 1):
        if number > 1:
            time.sleep(pause)
        yield f"{number}\n".encode()


def download(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """This file. The server hands it to the kernel, which sends it without copying."""
    path = Path(__file__)
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/x-python; charset=utf-8"),
            ("Content-Length", str(path.stat().st_size)),
            ("Content-Disposition", f'attachment; filename="{path.name}"'),
        ],
    )
    blocks: Iterable[bytes] = environ["wsgi.file_wrapper"](path.open("rb"))
    return blocks


def echo_form(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """The fields of a form that was posted."""
    if int(environ.get("CONTENT_LENGTH") or 0) > LARGEST_FORM:
        return answer(start_response, "413 Content Too Large", "That is a very long form.\n")
    body = environ["wsgi.input"].read().decode("utf-8", "replace")
    rows = [
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, values in parse_qs(body, keep_blank_values=True).items()
        for value in values
    ]
    page = f"<!doctype html><title>The form</title><dl>{''.join(rows)}</dl><a href='/'>Back</a>\n"
    return answer(start_response, "200 OK", page, HTML)


def answer(
    start_response: StartResponse, status: str, text: str, content_type: str = TEXT
) -> list[bytes]:
    """A response that is there as a whole: the server sends it at once, with its length."""
    start_response(status, [("Content-Type", content_type)])
    return [text.encode("utf-8")]


PAGES = {
    ("GET", "/"): index,
    ("GET", "/environ"): show_environ,
    ("GET", "/stream"): stream,
    ("GET", "/download"): download,
    ("POST", "/form"): echo_form,
}
