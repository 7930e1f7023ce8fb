"""Django through `DjangoApp`: the same as through WSGI, told apart by nobody above it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ....helpers.wire_client import Client
from .site import REQUESTS, Open, Site, head, site_with, whole

pytest.importorskip("django")


# ---- The same as through WSGI --------------------------------------------------------------


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_those_of_wsgi(name: str, site: Site, dial: Open) -> None:
    direct = whole(dial(site, "direct"), REQUESTS[name])
    assert direct.startswith(b"HTTP/1.1 ")
    through_wsgi = whole(dial(site, "wsgi"), REQUESTS[name])
    if _UNCOUNTED in through_wsgi and _UNCOUNTED not in direct:
        # An answer that no middleware has measured: only without WSGI its length is known.
        through_wsgi = counted(through_wsgi)
    assert direct == through_wsgi


_UNCOUNTED = b"Transfer-Encoding: chunked\r\n"


def counted(answer: bytes) -> bytes:
    """An answer of one chunk, as it is with a length."""
    begin, end, body = answer.partition(b"\r\n\r\n")
    size, _, rest = body.partition(b"\r\n")
    length = int(size, 16)
    assert rest[length:] == b"\r\n0\r\n\r\n"
    begin = begin.replace(_UNCOUNTED.strip(), b"Content-Length: %d" % length)
    return begin + end + rest[:length]


@pytest.mark.parametrize("name", ["error", "broken length", "unrendered", "exit"])
def test_an_error_is_an_error(name: str, site: Site, dial: Open) -> None:
    assert whole(dial(site), REQUESTS[name]).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    "target", ["/below/a%20b?c", "/below", "/below/", "/belows", "/", "/below/../x", "/bel%6Fw/x"]
)
def test_below_a_prefix(target: str, site: Site, dial: Open) -> None:
    direct = whole(dial(site, "direct below"), head("GET", target))
    assert direct == whole(dial(site, "wsgi below"), head("GET", target))
    told = json.loads(direct.partition(b"\r\n\r\n")[2])
    below = target in ("/below/a%20b?c", "/below", "/below/", "/below/../x", "/bel%6Fw/x")
    assert told["prefix"] == told["reversed"] == ("/below/" if below else "/")


@pytest.mark.parametrize("forced", ["/forced", ""])
def test_forced_script_name(forced: str, dial: Open) -> None:
    with site_with(FORCE_SCRIPT_NAME=forced) as site:
        for name in ("direct", "direct below"):
            direct = whole(dial(site, name), head("GET", "/below/a"))
            twin = name.replace("direct", "wsgi")
            assert direct == whole(dial(site, twin), head("GET", "/below/a"))
            told = json.loads(direct.partition(b"\r\n\r\n")[2])
            assert told["prefix"] == f"{forced}/"
        site.finish()


def test_the_forced_script_name_may_change(dial: Open) -> None:
    def prefix() -> str:
        answer = whole(dial(site), head("GET", "/below/a"))
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["prefix"])

    with site_with(FORCE_SCRIPT_NAME="/first") as site:
        assert prefix() == prefix() == "/first/"
        site.ask("force?/second")
        assert prefix() == "/second/"
        site.ask("force?")
        assert prefix() == "/"
        site.finish()


def test_without_the_middleware_that_counts(dial: Open) -> None:
    """The length is known all the same, and nothing else differs."""
    with site_with(MIDDLEWARE=[]) as site:
        answers = []
        for name in ("direct", "wsgi"):
            client = dial(site, name)
            answer = client.get("/hello?size=100000")
            assert answer.body == b"x" * 100000
            framing = ("content-length", "transfer-encoding", "date")
            answers.append([(k, v) for k, v in answer.headers if k not in framing])
            assert answer.header("content-length") == ("100000" if name == "direct" else None)
        assert answers[0] == answers[1]
        site.finish()


@pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed"
)
def test_a_view_is_told_what_gunicorn_tells(site: Site, dial: Open, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "--threads=2", "--bind=127.0.0.1:0"]
    command += ["--forwarded-allow-ips=", "tests.apps.django_views:configure()"]
    root = Path(__file__).parent.parent.parent.parent.parent
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            text = ""
            while not (found := re.search(r"Listening at: http://127.0.0.1:(\d+)", text)):
                line = process.stderr.readline()
                assert line, text
                text += line
            theirs = Site.__new__(Site)
            theirs.ports = {"gunicorn": int(found[1])}
            for name in ("plain", "query", "path", "not UTF-8", "fields"):
                ours, other = _told(dial(site), name), _told(dial(theirs, "gunicorn"), name)
                assert ours == other
        finally:
            process.terminate()
            process.communicate(timeout=20)


# a field with an underscore is dropped by both, and HTTP_PROXY by us
_SERVERS_OWN = (
    "SERVER_SOFTWARE SERVER_NAME GATEWAY_INTERFACE REQUEST_URI RAW_URI HTTP_PROXY"
).split()


def _told(client: Client, name: str) -> Any:
    client.send(REQUESTS[name])
    told = json.loads(client.answer().body)
    told["meta"] = {
        key: value.replace(", ", ",")  # joined differently, which means the same
        for key, value in told["meta"].items()
        if key not in _SERVERS_OWN and not key.startswith(("gunicorn.", "wsgi."))
    }
    return told


# ---- What is served directly ---------------------------------------------------------------

KINDS = """
import functools
from django.conf import settings
settings.configure(STATIC_URL="/static/", MEDIA_ROOT="/m", STATIC_ROOT="/s", MEDIA_URL="/media/")
import django
django.setup()
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import testcases
from threadwell.adapters.detect import as_sync_app

def show(name, app):
    app = as_sync_app(app)
    words = [type(app).__name__]
    while hasattr(app, "_application"):
        app = app._application
        words.append(type(app).__name__)
    print(name, *words, sep=",")

class Sub(WSGIHandler):
    pass

class Calls(WSGIHandler):
    def __call__(self, environ, start_response):
        return super().__call__(environ, start_response)

class Files(StaticFilesHandler):
    def _should_handle(self, path):
        return False

def all_kinds(when):
    show(when + " handler", WSGIHandler())
    show(when + " subclass", Sub())
    show(when + " subclass that calls", Calls())
    show(when + " function", lambda environ, start_response: [])
    show(when + " static", StaticFilesHandler(WSGIHandler()))
    show(when + " static subclass", Files(WSGIHandler()))
    show(when + " static around others", StaticFilesHandler(Calls()))
    show(when + " live", StaticFilesHandler(testcases._MediaFilesHandler(WSGIHandler())))

all_kinds("plain")
original = WSGIHandler.__call__

@functools.wraps(original)
def patched(self, environ, start_response):
    return original(self, environ, start_response)

WSGIHandler.__call__ = patched
all_kinds("patched")

class Proxy:  # as wrapt's, which shows all that the function shows
    def __init__(self, wrapped):
        self.wrapped = wrapped
    def __getattr__(self, name):
        return getattr(self.wrapped, name)
    def __get__(self, instance, owner):
        return self if instance is None else functools.partial(self.wrapped, instance)
    def __call__(self, *arguments):
        return self.wrapped(*arguments)

WSGIHandler.__call__ = Proxy(original)
all_kinds("proxied")
"""


def test_what_is_served_without_wsgi() -> None:
    """Django's own handlers; but nothing that an agent has patched may be gone around."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", KINDS], capture_output=True, text=True, check=True
    )
    kinds = dict(line.split(",", 1) for line in result.stdout.splitlines())
    around = "_WSGIWithDjango"
    assert {name: kind for name, kind in kinds.items() if name.startswith("plain")} == {
        "plain handler": "DjangoApp",
        "plain subclass": "DjangoApp",
        "plain subclass that calls": around,
        "plain function": around,
        "plain static": "_FilesApp,DjangoApp",
        "plain static subclass": "_FilesApp,DjangoApp",
        "plain static around others": f"_FilesApp,{around}",
        "plain live": "_FilesApp,_FilesApp,DjangoApp",
    }
    assert {kind for name, kind in kinds.items() if not name.startswith("plain")} == {around}
