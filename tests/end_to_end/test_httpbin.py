"""httpbin as it comes from PyPI, asked by requests, httpx and curl; and compared with gunicorn."""

from __future__ import annotations

import base64
import contextlib
import gzip
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests

from ..helpers.command import command, get
from ..helpers.process import script
from ..helpers.wire_client import Answer, Client

if importlib.util.find_spec("httpbin") is None:
    pytest.skip("httpbin is not installed", allow_module_level=True)

# One server for the whole module: it must serve all of this, on the connections of three clients.


@pytest.fixture(scope="module", params=["threadwell", "flask serve"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where httpbin is served, from Python and by Flask's command."""
    if request.param == "threadwell":
        with script("httpbin_server.py") as server:
            yield server.url
    else:
        words = ["-W", "error", "-m", "flask", "--app", "httpbin:app", "serve", "-p", "0"]
        with command(words, tmp_path_factory.mktemp("empty")) as running:
            yield running.url()
            assert "Traceback" not in running.end()


class Reply:
    """What a client got, whichever it was."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class ByRequests:
    """requests, with one session."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(self, method: str, url: str, **options: Any) -> Reply:
        reply = self._session.request(
            method,
            url,
            headers=options.get("headers"),
            data=options.get("data"),
            auth=options.get("auth"),
            timeout=10,
            allow_redirects=options.get("follow", False),
        )
        return Reply(reply.status_code, _lower(reply.headers), reply.content)

    def close(self) -> None:
        self._session.close()


class ByHttpx:
    """httpx, with one client."""

    def __init__(self) -> None:
        self._client = httpx.Client(trust_env=False, timeout=10)

    def ask(self, method: str, url: str, **options: Any) -> Reply:
        data = options.get("data")
        reply = self._client.request(
            method,
            url,
            headers=options.get("headers"),
            content=None if isinstance(data, dict) else data,
            data=data if isinstance(data, dict) else None,
            auth=options.get("auth"),
            follow_redirects=options.get("follow", False),
        )
        return Reply(reply.status_code, _lower(reply.headers), reply.content)

    def close(self) -> None:
        self._client.close()


class ByCurl:
    """curl, a process for each request."""

    def ask(self, method: str, url: str, **options: Any) -> Reply:
        command = ["curl", "-sS", "--noproxy", "*", "--compressed", "-m", "10", "-D", "/dev/stderr"]
        command += ["-I"] if method == "HEAD" else ["-X", method]
        for name, value in (options.get("headers") or {}).items():
            command += ["-H", f"{name}: {value}"]
        data, sent = options.get("data"), b""
        if isinstance(data, dict):
            for name, value in data.items():
                command += ["--data-urlencode", f"{name}={value}"]
        elif data is not None:
            command += ["--data-binary", "@-"]
            if "Content-Type" not in (options.get("headers") or {}):
                command += ["-H", "Content-Type:"]
            if isinstance(data, bytes):
                sent = data
            else:
                sent = b"".join(data)
                command += ["-H", "Transfer-Encoding: chunked"]
        if options.get("auth"):
            command += ["-u", ":".join(options["auth"])]
        if options.get("follow"):
            command += ["-L", "-c", "/dev/null"]
        done = subprocess.run(
            [*command, "--globoff", "--path-as-is", url],
            input=sent,
            capture_output=True,
            check=True,
            timeout=20,
        )
        head = done.stderr.decode("latin-1").strip().split("\r\n\r\n")[-1]
        status_line, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        return Reply(int(status_line.split(" ")[1]), _lower(headers), done.stdout)

    def close(self) -> None:
        pass


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.fixture(params=[ByRequests, ByHttpx, ByCurl], ids=["requests", "httpx", "curl"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of the clients in turn."""
    if request.param is ByCurl and shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    with contextlib.closing(request.param()) as client:
        yield client


# ---- What goes in --------------------------------------------------------------------------


def test_get(client: Any, url: str) -> None:
    reply = client.ask("GET", f"{url}/get?a=1&b=%20x&a=2", headers={"X-Mine": "yes"})
    assert reply.status == 200
    said = reply.json()
    assert said["args"] == {"a": ["1", "2"], "b": " x"}
    assert said["headers"]["X-Mine"] == "yes"
    assert said["origin"] == "127.0.0.1"
    assert said["url"].startswith(f"{url}/get?a=1&b=")


def test_post_form(client: Any, url: str) -> None:
    reply = client.ask("POST", f"{url}/post", data={"a": "1", "b": "\u20ac &="})
    assert reply.json()["form"] == {"a": "1", "b": "\u20ac &="}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_json(client: Any, url: str, method: str) -> None:
    sent = {"key": ["value", 1, None, "\u20ac"]}
    reply = client.ask(
        method,
        f"{url}/{method.lower()}",
        headers={"Content-Type": "application/json"},
        data=json.dumps(sent).encode(),
    )
    assert reply.status == 200
    assert reply.json()["json"] == sent


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
def test_post_bytes(client: Any, url: str, size: int) -> None:
    sent = b"\xff" * size  # no UTF-8, so httpbin shows it in base64
    reply = client.ask(
        "POST", f"{url}/post", headers={"Content-Type": "application/octet-stream"}, data=sent
    )
    kind, _, text = reply.json()["data"].partition("base64,")
    assert kind in ("data:application/octet-stream;", "")
    assert base64.b64decode(text) == sent


def test_post_chunked(client: Any, url: str) -> None:
    """Frameworks do not look for a body without a length; it arrives all the same."""
    blocks = [b"block %d " % number * 100 for number in range(400)]
    reply = client.ask(
        "POST", f"{url}/post", headers={"Content-Type": "text/plain"}, data=iter(blocks)
    )
    said = reply.json()
    assert said["data"].encode() == b"".join(blocks)
    assert said["headers"]["Content-Length"] == str(len(b"".join(blocks)))
    assert "Transfer-Encoding" not in said["headers"]


def test_upload_files(url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        reply = session.post(
            f"{url}/post",
            data={"field": "value"},
            files={"a": ("a.txt", b"small"), "b": ("b.txt", b"large" * 200_000)},
            timeout=10,
        )
    said = reply.json()
    assert said["files"] == {"a": "small", "b": "large" * 200_000}
    assert said["form"] == {"field": "value"}


@pytest.mark.parametrize(
    "path", ["/a%20b", "/%e2%82%ac", "/a%2Fb", "/a+b", "/a;b=c", "/%25", "/~a'()*"]
)
def test_odd_paths(client: Any, url: str, path: str) -> None:
    reply = client.ask("GET", f"{url}/anything{path}?q=%26")
    assert reply.status == 200
    assert reply.json()["args"] == {"q": "&"}


# ---- What comes out ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 418, 500, 503])
def test_status(client: Any, url: str, status: int) -> None:
    reply = client.ask("GET", f"{url}/status/{status}")
    assert reply.status == status
    assert (b"teapot" in reply.body) == (status == 418)


@pytest.mark.parametrize("kind", ["redirect", "relative-redirect", "absolute-redirect"])
def test_redirects(client: Any, url: str, kind: str) -> None:
    assert client.ask("GET", f"{url}/{kind}/3").status == 302
    reply = client.ask("GET", f"{url}/{kind}/3", follow=True)
    assert (reply.status, reply.json()["url"]) == (200, f"{url}/get")


def test_cookies(client: Any, url: str) -> None:
    reply = client.ask("GET", f"{url}/cookies/set?name=value", follow=True)
    assert reply.json() == {"cookies": {"name": "value"}}


def test_basic_auth(client: Any, url: str) -> None:
    refused = client.ask("GET", f"{url}/basic-auth/me/secret")
    assert (refused.status, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    reply = client.ask("GET", f"{url}/basic-auth/me/secret", auth=("me", "secret"))
    assert reply.json()["authenticated"] is True


def test_compressed(client: Any, url: str) -> None:
    assert client.ask("GET", f"{url}/gzip").json()["gzipped"] is True
    assert client.ask("GET", f"{url}/deflate").json()["deflated"] is True


def test_stream(client: Any, url: str) -> None:
    reply = client.ask("GET", f"{url}/stream/5")
    assert [json.loads(line)["id"] for line in reply.body.splitlines()] == [0, 1, 2, 3, 4]


def test_bytes(client: Any, url: str) -> None:
    first = client.ask("GET", f"{url}/bytes/10240?seed=1")
    assert len(first.body) == 10240
    streamed = client.ask("GET", f"{url}/stream-bytes/10240?seed=1&chunk_size=100")
    assert streamed.body == first.body
    assert "content-length" not in streamed.headers


def test_range(client: Any, url: str) -> None:
    whole = client.ask("GET", f"{url}/range/1024")
    assert (whole.status, len(whole.body)) == (200, 1024)
    part = client.ask("GET", f"{url}/range/1024", headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers["content-range"] == "bytes 10-19/1024"
    beyond = client.ask("GET", f"{url}/range/1024", headers={"Range": "bytes=2000-"})
    assert beyond.status == 416


def test_drip(client: Any, url: str) -> None:
    reply = client.ask("GET", f"{url}/drip?numbytes=5&duration=0.2&delay=0&code=203")
    assert (reply.status, reply.body) == (203, b"*****")


def test_etag(client: Any, url: str) -> None:
    assert client.ask("GET", f"{url}/etag/x").headers["etag"] == "x"
    matched = client.ask("GET", f"{url}/etag/x", headers={"If-None-Match": '"x"'})
    assert (matched.status, matched.body) == (304, b"")
    failed = client.ask("GET", f"{url}/etag/x", headers={"If-Match": '"y"'})
    assert failed.status == 412


def test_cache(client: Any, url: str) -> None:
    assert client.ask("GET", f"{url}/cache").status == 200
    assert client.ask("GET", f"{url}/cache", headers={"If-None-Match": "x"}).status == 304
    assert client.ask("GET", f"{url}/cache/60").headers["cache-control"] == "public, max-age=60"


def test_response_headers(client: Any, url: str) -> None:
    reply = client.ask("GET", f"{url}/response-headers?X-Mine=a%20b&Server=mine")
    assert reply.headers["x-mine"] == "a b"
    assert reply.headers["server"] == "mine"


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/encoding/utf8", "text/html", "STARGΛ̊TE SG-1".encode()),
        ("/image/png", "image/png", b"\x89PNG\r\n"),
        ("/html", "text/html", b"Moby-Dick"),
        ("/robots.txt", "text/plain", b"Disallow: /deny"),
        ("/links/10/3", "text/html", b"/links/10/4"),
        ("/xml", "application/xml", b"<slideshow"),
    ],
)
def test_documents(client: Any, url: str, path: str, kind: str, part: bytes) -> None:
    reply = client.ask("GET", url + path)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith(kind)
    assert part in reply.body


def test_head(client: Any, url: str) -> None:
    got = client.ask("GET", f"{url}/html")
    reply = client.ask("HEAD", f"{url}/html")
    assert reply.status == 200
    assert reply.headers["content-length"] == got.headers["content-length"]


# ---- Beside gunicorn -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def gunicorn_port() -> Iterator[int]:
    """httpbin on gunicorn's threads. It gets a socket that listens already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "2"]
        command += ["--bind", f"fd://{listener.fileno()}", "--log-level", "error", "httpbin:app"]
        with subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                port = listener.getsockname()[1]
                # its start is not within the patience of a test
                assert get(f"http://127.0.0.1:{port}/status/200")[0] == 200
                yield port
            finally:
                process.terminate()


# What belongs to the connection or to the server, and so may differ.
THEIRS = {"date", "server", "connection", "keep-alive", "content-length", "transfer-encoding"}

TARGETS = [
    ("GET", "/get?a=1&b=%20", b""),
    ("GET", "/anything/a%20b/%e2%82%ac?x", b""),
    ("GET", "/anything/a%2Fb;c", b""),
    ("GET", "/anything//a//", b""),
    ("POST", "/anything", b"a=1&b=2"),
    ("PUT", "/anything", b"\x00\xff"),
    ("DELETE", "/delete", b""),
    ("PATCH", "/patch", b"{}"),
    ("HEAD", "/html", b""),
    ("HEAD", "/status/204", b""),
    ("OPTIONS", "/get", b""),
    ("POST", "/get", b"not allowed"),
    ("GET", "/html", b""),
    ("GET", "/robots.txt", b""),
    ("GET", "/deny", b""),
    ("GET", "/xml", b""),
    ("GET", "/json", b""),
    ("GET", "/image/png", b""),
    ("GET", "/image/jpeg", b""),
    ("GET", "/image/svg", b""),
    ("GET", "/encoding/utf8", b""),
    ("GET", "/bytes/10240?seed=1", b""),
    ("GET", "/stream-bytes/10240?seed=1&chunk_size=1000", b""),
    ("GET", "/range/1024", b""),
    ("GET", "/range/1024?chunk_size=10", b""),
    ("GET", "/stream/5", b""),
    ("GET", "/drip?numbytes=3&duration=0&delay=0", b""),
    ("GET", "/links/10/3", b""),
    ("GET", "/response-headers?A=1&A=2&B=3", b""),
    ("GET", "/cookies/set?a=1&b=2", b""),
    ("GET", "/redirect/3", b""),
    ("GET", "/redirect-to?url=/x%20y&status_code=307", b""),
    ("GET", "/basic-auth/a/b", b""),
    ("GET", "/status/204", b""),
    ("GET", "/status/304", b""),
    ("GET", "/status/418", b""),
    ("GET", "/status/500", b""),
    ("GET", "/etag/x", b""),
    ("GET", "/cache/10", b""),
    ("GET", "/base64/aGVsbG8=", b""),
    ("GET", "/nowhere", b""),
    ("GET", "/forms/post", b""),
]


def _ask(port: int, method: str, target: str, body: bytes) -> Answer:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        client = Client(sock)
        framing = f"Content-Length: {len(body)}\r\n" if body else ""
        client.send(
            f"{method} {target} HTTP/1.1\r\nHost: same\r\nAccept: */*\r\n{framing}"
            f"Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode()
            + body
        )
        return client.answer(method)


def _of_the_application(answer: Answer) -> list[tuple[str, Any]]:
    """Its headers in order. Flask makes `Allow` of a set, in any order."""
    return [
        (name, sorted(value.split(", ")) if name == "allow" else value)
        for name, value in answer.headers
        if name not in THEIRS
    ]


@pytest.mark.parametrize(
    ("method", "target", "body"), TARGETS, ids=[f"{method} {path}" for method, path, _ in TARGETS]
)
def test_the_same_as_gunicorn(
    url: str, gunicorn_port: int, method: str, target: str, body: bytes
) -> None:
    ours = _ask(int(url.rpartition(":")[2]), method, target, body)
    theirs = _ask(gunicorn_port, method, target, body)
    assert (ours.status, ours.reason, ours.body) == (theirs.status, theirs.reason, theirs.body)
    assert _of_the_application(ours) == _of_the_application(theirs)


def test_compressed_the_same_as_gunicorn(url: str, gunicorn_port: int) -> None:
    """Compressed, the bytes depend on the clock."""
    port = int(url.rpartition(":")[2])
    for target, unpack in (("/gzip", gzip.decompress), ("/deflate", zlib.decompress)):
        ours, theirs = (_ask(each, "GET", target, b"") for each in (port, gunicorn_port))
        assert unpack(ours.body) == unpack(theirs.body)
        assert ours.header("content-encoding") == theirs.header("content-encoding")
