"""Django through `DjangoApp`: the same as through WSGI, told apart by nobody above it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .apps.process import Script, script
from .wire_client import Client

pytest.importorskip("django")

CONTENT = bytes(range(256)) * 1024
COUNTED = {"CACHES": {"default": {"BACKEND": "__main__.CountedCache"}}}
Open = Callable[..., Client]


class Site:
    """The views in a process of their own, behind servers of several kinds."""

    def __init__(self, process: Script) -> None:
        self.process = process
        self.ports: dict[str, int] = self.ask("ports")

    def ask(self, word: str) -> Any:
        with urllib.request.urlopen(f"{self.process.url}/{word}", timeout=20) as answer:
            return json.load(answer)

    def finish(self) -> None:
        """Let it end: nothing was amiss."""
        assert self.ask("log") == []
        self.process.finish()

    def events(self, ends: int = 0) -> list[Any]:
        """What has happened since the last time, once `ends` requests are finished."""
        happened: list[Any] = []
        deadline = time.monotonic() + 20
        while True:
            happened += self.ask("events")
            if sum(event[0] == "finished" for event in happened) >= ends:
                return happened
            assert time.monotonic() < deadline, happened
            time.sleep(0.01)


@contextlib.contextmanager
def site_with(**settings: Any) -> Iterator[Site]:
    with script("django_views.py", json.dumps(settings)) as process:
        yield Site(process)


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    with site_with() as running:
        yield running


@pytest.fixture
def site(shared_site: Site) -> Site:
    shared_site.ask("hold")
    shared_site.ask("events")
    return shared_site


@pytest.fixture
def dial() -> Iterator[Open]:
    """`dial(site, name)`: a connection to one of its servers; its requests end with the test."""
    with contextlib.ExitStack() as stack:

        def connect(site: Site, name: str = "direct") -> Client:
            sock = socket.create_connection(("127.0.0.1", site.ports[name]), 20)
            client = stack.enter_context(contextlib.closing(Client(sock)))
            stack.callback(_hang_up, client)
            return client

        yield connect


def _hang_up(client: Client) -> None:
    """Wait until the server closes: not before it is done with the requests."""
    with contextlib.suppress(OSError):  # it has closed before, or the test has
        client.sock.shutdown(socket.SHUT_WR)
        client.rest()


def head(method: str, target: str, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: example.com", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(target: str, body: bytes, *fields: str) -> bytes:
    return head("POST", target, f"Content-Length: {len(body)}", *fields) + body


def chunked(target: str, body: bytes, *fields: str, size: int = 100) -> bytes:
    blocks = [body[at : at + size] for at in range(0, len(body), size)]
    data = b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)
    return head("POST", target, "Transfer-Encoding: chunked", *fields) + data + b"0\r\n\r\n"


def multipart(fields: dict[str, str], files: dict[str, bytes]) -> tuple[str, bytes]:
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return "Content-Type: multipart/form-data; boundary=limit", b"".join(parts) + b"--limit--\r\n"


def whole(client: Client, data: bytes) -> bytes:
    """All that is answered until the server closes, but for the time of day."""
    client.send(data)
    client.sock.shutdown(socket.SHUT_WR)
    return re.sub(rb"\r\nDate: [^\r]*", b"", client.rest())


# ---- The same as through WSGI --------------------------------------------------------------

FORM, FILES = multipart({"a": "1", "ü": "é"}, {"small": b"x" * 10, "large": b"y" * 2_700_000})

REQUESTS = {
    "plain": head("GET", "/"),
    "query": head("GET", "/?a=1&a=2&b=%C3%A9&c=%FF&%20=+&=&d"),
    "path": head("GET", "/caf%C3%A9/a%2Fb//c%20d;e"),
    "not UTF-8": head("GET", "/%FF%FEx/%E9?%FF"),
    "raw octets": head("GET", "/caf\u00c3\u00a9"),
    "no such static file": head("GET", "/static/a.css"),
    "absolute form": head("GET", "http://other.example/at?b=c"),
    "options": head("OPTIONS", "*"),
    "method of lower case": head("get", "/"),
    "unknown method": head("BREW", "/"),
    "fields": head(
        "GET",
        "/",
        "Cookie: a=1; b=\u00fc; c",
        "X-A: 1",
        "X-A: 2",
        "X_B: 3",
        "Accept-Language: de",
        "Proxy: evil",
        "Authorization: Basic YTpi",
        "Content-Type: text/plain",
        "Script-Name: /evil",
        "Script-Url: /evil",
        "X-Forwarded-Proto: https",
    ),
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /hello HTTP/1.0\r\n\r\n",
    "HTTP/1.0 stream": b"GET /stream HTTP/1.0\r\n\r\n",
    "host in vain": b"GET /hello HTTP/1.1\r\nHost: a_b!c\r\n\r\n",
    "head": head("HEAD", "/hello?size=10"),
    "empty": head("GET", "/hello?size=0"),
    "large": head("GET", "/hello?size=5000000"),
    "reason": head("GET", "/hello?status=418&reason=Short+and+stout"),
    "reason in Latin-1": head("GET", "/hello?status=418&reason=%C3%BC"),
    "empty reason": head("GET", "/hello?reason="),
    "unknown status": head("GET", "/hello?status=599"),
    "interim status": head("GET", "/hello?status=102"),
    "204": head("GET", "/hello?status=204&size=0"),
    "204 with a body": head("GET", "/hello?status=204"),
    "fields of the answer": head("GET", "/headers"),
    "status that is named": head("GET", "/named"),
    "304": head("GET", "/304"),
    "304 by its tag": head("GET", "/hello", 'If-None-Match: "5d41402a", *'),
    "redirect": head("GET", "/redirect"),
    "stream": head("GET", "/stream"),
    "head of a stream": head("HEAD", "/stream"),
    "empty stream": head("GET", "/stream?blocks=0"),
    "declared stream": head("GET", "/stream?declared=14"),
    "declared too little": head("GET", "/stream?declared=3"),
    "declared too much": head("GET", "/stream?declared=300"),
    "broken stream": head("GET", "/stream?fail"),
    "file": head("GET", "/file?kind=file"),
    "file from within": head("GET", "/file?kind=file&from=1000"),
    "file from beyond": head("GET", "/file?kind=file&from=1000000"),
    "part of a file": head("GET", "/file?kind=file&declared=100"),
    "more than a file": head("GET", "/file?kind=file&declared=1000000"),
    "head of a file": head("HEAD", "/file?kind=file"),
    "file of Django's": head("GET", "/file?kind=django&from=3"),
    "file of a field": head("GET", "/file?kind=field"),
    "uploaded file": head("GET", "/file?kind=uploaded&from=3"),
    "temporary file": head("GET", "/file?kind=temporary&from=7"),
    "file in memory": head("GET", "/file?kind=bytes&from=3"),
    "empty file": head("GET", "/file?kind=empty"),
    "body": post("/body", b"a=1" * 1000, "Content-Type: application/x-www-form-urlencoded"),
    "body in chunks": chunked("/body", b"a=1" * 1000),
    "empty body": post("/body", b""),
    "large body": post("/body", b"z" * 2_000_000),
    "body too large": post("/body", b"z" * 3_000_000),
    "no body where one is said": head("GET", "/body", "Content-Length: 0"),
    "form": post("/parts", b"a=1&b=%C3%A9", "Content-Type: application/x-www-form-urlencoded"),
    "body read twice": post("/reread", b"abcdefg"),
    "no token": post("/protected", b"said=x", "Content-Type: application/x-www-form-urlencoded"),
    "async view": head("GET", "/async"),
    "async stream": head("GET", "/async-stream"),
    "error": head("GET", "/fail"),
    "exit": head("GET", "/fail?how=exit"),
    "error before": head("GET", "/hello", "X-Fail: before"),
    "error after": head("GET", "/hello", "X-Fail: after"),
    "unrendered": head("GET", "/hello", "X-Fail: unrendered"),
    **{
        f"broken {kind}": head("GET", f"/broken?kind={kind.replace(' ', '+')}")
        for kind in ("length", "status", "text status", "reason", "newline", "stream")
    },
    "many at once": head("GET", "/") * 20,
}


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
    root = Path(__file__).parent.parent
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


# ---- Signals, and what is closed -----------------------------------------------------------


# Django says nothing of the end of a request that ends with its handler; we do.
_ENDING = [
    (name, server)
    for name in REQUESTS
    for server in ("direct", "wsgi", "middleware")
    if name != "many at once" and (name != "exit" or server == "direct")
]


@pytest.mark.parametrize(("name", "server"), _ENDING)
def test_every_request_starts_and_finishes_once(
    name: str, server: str, site: Site, dial: Open
) -> None:
    answer = whole(dial(site, server), REQUESTS[name])
    if name == "HTTP/1.0 without a host" or not answer.startswith(b"HTTP/1.1 4"):
        events = site.events(ends=1)
    else:
        events = site.events()
        if not events:
            return  # refused before Django
        events += site.events(ends=1 - sum(event[0] == "finished" for event in events))
    started = [event for event in events if event[0] == "started"]
    finished = [event for event in events if event[0] == "finished"]
    assert [event[1] for event in started] == [event[1] for event in finished] == ["WSGIHandler"]
    # on one thread, the end last, after all that the response closes
    assert len({event[-1] for event in events if event[0] != "warned"}) == 1
    assert events[-1] == finished[0]
    assert events[0] == started[0]
    closed = [event[0] for event in events if event[0].endswith("closed")]
    assert len(closed) == len(set(closed))
    if b"Set-Cookie" not in answer and "error" not in name and "un" not in name:
        assert "resource closed" in closed or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 500"))


@pytest.mark.parametrize("server", ["direct", "wsgi"])
def test_a_client_that_leaves_in_mid_stream(server: str, site: Site, dial: Open) -> None:
    client = dial(site, server)
    client.send(head("GET", "/endless"))
    client.sock.recv(1000)
    client.close()
    events = site.events(ends=1)
    assert [event[0] for event in events] == [
        "started",
        "resource closed",
        "had connection",
        "finished",
    ] or [event[0] for event in events] == [
        "started",
        "had connection",
        "resource closed",
        "finished",
    ]
    assert ["had connection", True] in events


def test_a_client_that_leaves_before_the_answer(site: Site, dial: Open) -> None:
    client = dial(site)
    client.send(head("GET", "/stream?wait&blocks=1000"))
    client.sock.recv(1)
    client.close()
    site.ask("release")
    events = site.events(ends=1)
    assert [event[0] for event in events] == [
        "started",
        "iterated",
        "content closed",
        "resource closed",
        "finished",
    ]


def test_queries_are_counted_anew(dial: Open) -> None:
    with site_with(threads=1) as site:
        client = dial(site)
        client.get("/queries")  # connects
        assert [json.loads(client.get("/queries").body)["count"] for _ in range(3)] == [1, 1, 1]
        site.finish()


# ---- Long and asynchronous -----------------------------------------------------------------


def test_streams_hold_nobody_up(site: Site, dial: Open) -> None:
    """Twice as many as there are threads, and another request in between."""
    waiting = [dial(site) for _ in range(6)]
    for client in waiting:
        client.send(head("GET", "/stream?wait"))
        client.sock.settimeout(20)
    assert dial(site).get("/hello").body == b"xxxxx"
    site.ask("release")
    for client in waiting:
        assert client.answer().body == b"bytes;block 1;bytes;"
    site.events(ends=7)


def test_async_stream_is_consumed_with_a_warning(site: Site, dial: Open) -> None:
    assert dial(site).get("/async-stream").body == b"0;1;2;"
    warned = [event[1] for event in site.events(ends=1) if event[0] == "warned"]
    assert len(warned) == 1
    assert "must consume asynchronous iterators" in warned[0]


def test_a_file_that_grows_keeps_its_length(site: Site, dial: Open) -> None:
    client = dial(site)
    assert client.get("/file?kind=growing").body == CONTENT
    assert client.get("/hello").body == b"xxxxx"  # nothing is between the two


# ---- From one request to the next ----------------------------------------------------------


def test_nothing_is_left_for_the_next_request(dial: Open) -> None:
    with site_with(threads=1) as site:
        for name in ("direct", "wsgi", "middleware", "direct below"):
            client = dial(site, name)
            first = json.loads(client.get("/below/state?set").body) if "b" in name[-5:] else None
            first = first or json.loads(client.get("/state?set").body)
            again = json.loads(client.get("/state").body)
            assert again["thread"] == first["thread"]
            assert again["seen"] == ["en-us", "America/Chicago", "/"]
        site.finish()


@pytest.mark.parametrize("server", ["direct", "middleware"])
def test_a_cache_is_made_once_a_thread(server: str, dial: Open) -> None:
    with site_with(threads=1, **COUNTED) as site:
        site.ask("events")
        client = dial(site, server)
        answers = [json.loads(client.get("/cached").body) for _ in range(5)]
        assert [answer["count"] for answer in answers] == [1, 2, 3, 4, 5]
        assert json.loads(client.get("/async-cached").body)["count"] == 6
        client.close()
        events = site.events(ends=6)
        assert [event[0] for event in events].count("cache made") == 1
        site.ask("stop")
        assert site.ask("events") == [["cache closed", answers[0]["thread"]]]
        site.finish()


def test_caches_may_be_overridden(dial: Open) -> None:
    """`override_settings` in a live test reaches the threads that serve."""
    with site_with(threads=1, **COUNTED) as site:
        client = dial(site)
        assert json.loads(client.get("/cached").body)["count"] == 1
        client.get("/recache")
        assert json.loads(client.get("/cached").body)["count"] == 1
        assert json.loads(client.get("/cached").body)["count"] == 2
        site.finish()


# ---- Bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["direct", "wsgi"])
def test_a_chunked_form_passes_csrf(server: str, site: Site, dial: Open) -> None:
    """Elsewhere Django sees no body without a length, and so no token."""
    client = dial(site, server)
    answer = client.get("/protected")
    cookie = str(answer.header("set-cookie")).partition(";")[0]
    form = b"said=hello&csrfmiddlewaretoken=" + answer.body
    kind = "Content-Type: application/x-www-form-urlencoded"
    client.send(chunked("/protected", form, kind, f"Cookie: {cookie}", size=7))
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello")
    body = multipart({"said": "x" * 100_000, "csrfmiddlewaretoken": form.decode()[-64:]}, {})
    client.send(chunked("/protected", body[1], body[0], f"Cookie: {cookie}", size=3000))
    assert client.answer().body == b"x" * 100_000


def _parts(client: Client) -> Any:
    answer = client.answer()
    assert answer.status == 200, answer
    return json.loads(answer.body)


@pytest.mark.parametrize("encode", [post, chunked])
@pytest.mark.parametrize("server", ["direct", "wsgi"])
def test_uploads(server: str, encode: Callable[..., bytes], site: Site, dial: Open) -> None:
    client = dial(site, server)
    extra = {"size": 65536} if encode is chunked else {}
    client.send(encode("/parts", FILES, FORM, **extra))
    told = _parts(client)
    assert told["form"] == {"a": "1", "ü": "é"}
    assert told["files"] == {
        "small": ["TemporaryUploadedFile", 10, hashlib.sha256(b"x" * 10).hexdigest()],
        "large": [
            "TemporaryUploadedFile",
            2_700_000,
            hashlib.sha256(b"y" * 2_700_000).hexdigest(),
        ],
    }


@pytest.mark.parametrize("encode", [post, chunked])
def test_small_uploads_stay_in_memory(encode: Callable[..., bytes], site: Site, dial: Open) -> None:
    client = dial(site)
    kind, data = multipart({}, {"small": b"x" * 10})
    client.send(encode("/parts", data, kind))
    assert _parts(client)["files"]["small"][0] == "InMemoryUploadedFile"


def test_a_large_upload_needs_little_memory(dial: Open) -> None:
    with site_with(threads=1) as site:
        client = dial(site)
        for encode in (post, chunked):
            extra = {"size": 65536} if encode is chunked else {}
            client.send(encode("/parts", FILES, FORM, **extra))
            _parts(client)
            before = site.ask("hwm")
            large = b"y" * (50 << 20)
            kind, data = multipart({}, {"large": large})
            extra = {"size": 1 << 20} if encode is chunked else {}
            client.send(encode("/parts", data, kind, **extra))
            told = _parts(client)
            digest = hashlib.sha256(large).hexdigest()
            assert told["files"] == {"large": ["TemporaryUploadedFile", len(large), digest]}
            assert site.ask("hwm") - before < 10 << 10
        site.finish()


@pytest.mark.parametrize("encode", [post, chunked])
def test_limits_of_django(encode: Callable[..., bytes], dial: Open) -> None:
    with site_with(DATA_UPLOAD_MAX_MEMORY_SIZE=1000, DATA_UPLOAD_MAX_NUMBER_FIELDS=5) as site:
        client = dial(site)
        form = "Content-Type: application/x-www-form-urlencoded"
        for body, status in (
            (b"a=" + b"b" * 998, 200),
            (b"a=" + b"b" * 999, 400),
            (b"a=1&" * 5 + b"a=1", 400),
            (b"a=1", 200),
        ):
            client.send(encode("/parts", body, form))
            assert client.answer().status == status
        kind, data = multipart({"a": "x" * 2000}, {})
        client.send(encode("/parts", data, kind))
        assert client.answer().status == 400
        # files do not count
        kind, data = multipart({"a": "x"}, {"f": b"y" * 100_000})
        client.send(encode("/parts", data, kind))
        assert _parts(client)["files"]["f"][1] == 100_000
        site.finish()


def test_a_body_that_was_begun(site: Site, dial: Open) -> None:
    client = dial(site)
    client.send(post("/reread", b"abcdefg"))
    told = json.loads(client.answer().body)
    assert told == {"begun": "abc", "rest": "RawPostDataException", "stream": "defg"}


@pytest.mark.parametrize("encode", [post, chunked])
def test_expect_continue(encode: Callable[..., bytes], site: Site, dial: Open) -> None:
    client = dial(site)
    data = encode("/body", b"abc" * 100, "Expect: 100-continue")
    begin, end, rest = data.partition(b"\r\n\r\n")
    client.send(begin + end)
    assert client.answer().status == 100
    client.send(rest)
    assert json.loads(client.answer().body)["size"] == 300


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
