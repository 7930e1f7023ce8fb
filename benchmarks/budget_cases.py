"""The requests that budget.py sends: what real clients send, another one each time."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

BROWSER = """\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br
"""
FETCH = """\
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
"""
REPEATED = f"""\
{BROWSER}Cookie: csrftoken=abcdefghijklmnop; sessionid=0123456789abcdef0123456789abcdef
{FETCH}Sec-Fetch-Site: none
"""
VARIED = f"""\
{BROWSER}{FETCH}Cookie: sessionid={{n}}; csrftoken=abc{{k}}
If-None-Match: "{{e}}"
"""
FIREFOX = """\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: http://example.com/items/{m}
Cookie: sessionid={n}; csrftoken=abc{k}
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Sec-Fetch-Site: same-origin
Sec-Fetch-User: ?1
Priority: u=0, i
"""
CHROME = """\
Cache-Control: max-age=0
sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"
sec-ch-ua-mobile: ?0
sec-ch-ua-platform: "Linux"
Upgrade-Insecure-Requests: 1
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/142.0.0.0 Safari/537.36
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,\
image/apng,*/*;q=0.8
Sec-Fetch-Site: same-origin
Sec-Fetch-Mode: navigate
Sec-Fetch-User: ?1
Sec-Fetch-Dest: document
Referer: http://example.com/items/{m}
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9
Cookie: sessionid={n}; csrftoken=abc{k}
If-None-Match: "{e}"
"""
API = """\
User-Agent: python-requests/2.32.3
Accept-Encoding: gzip, deflate
Accept: */*
Connection: keep-alive
Content-Length: {size}
Content-Type: application/json
Authorization: Bearer abc{n}
"""
LOG = "{folder}/access.log"
JSON = ("--log-format", "json")
POST = "Content-Type: application/octet-stream\nContent-Length: {size}\n"


@dataclass(frozen=True)
class Case:
    """Requests of one kind to one application.

    `app` is a name in budget_apps.py. `{n}`, `{m}`, `{k}` and `{e}` in `target` and `fields` are
    numbers that belong to a request, `{size}` is the length of its body. `options` are those of the
    server, `{folder}` in them is one of its own. `package` is what the figure depends on beside
    threadwell.
    """

    name: str
    app: str
    fields: str
    target: str = "/items/{n}?page={page}"
    size: int = 0
    varied_size: int = 0
    options: tuple[str, ...] = ()
    package: str = ""

    @property
    def label(self) -> str:
        """The name, with the version of the package."""
        if not self.package:
            return self.name
        return f"{self.name}, {self.package} {importlib.metadata.version(self.package)}"

    def request(self, number: int) -> bytes:
        """Request `number`, as it is sent."""
        size = self.size + (number % self.varied_size if self.varied_size else 0)
        numbers = {
            "n": number,
            "m": number - 1,
            "k": number * 7,
            "e": number * 13,
            "page": number % 17,
            "size": size,
        }
        target, fields = self.target.format(**numbers), self.fields.format(**numbers)
        method = "POST" if size else "GET"
        head = f"{method} {target} HTTP/1.1\nHost: 127.0.0.1:8000\n{fields}\n"
        return head.replace("\n", "\r\n").encode() + b"a" * size


CASES = (
    Case("hello-browser", "plain", REPEATED, "/"),
    Case("hello-varied", "plain", VARIED),
    Case("firefox-varied", "plain", FIREFOX),
    Case("chrome-varied", "plain", CHROME),
    Case("api-varied", "plain", API, size=100, varied_size=500),
    Case("post1k", "plain", POST, "/", size=1024),
    Case("hello-close", "plain", "Connection: close\n", "/"),
    Case("stream", "plain", "", "/stream"),
    Case("flask-varied", "make_flask()", VARIED, package="flask"),
    Case("django-varied", "make_django()", VARIED, package="django"),
    Case("metrics", "plain", REPEATED, "/", options=("--metrics-bind", "127.0.0.1:0")),
    Case("log-combined", "plain", REPEATED, "/", options=("--access-log", LOG)),
    Case("log-json", "plain", REPEATED, "/", options=(*JSON, "--access-log", LOG)),
    Case("asgi-hello", "make_asgi()", REPEATED, "/"),
    Case("asgi-varied", "make_asgi()", VARIED),
    Case("asgi-post1k", "make_asgi()", POST, "/", size=1024),
    Case("asgi-stream", "make_asgi()", "", "/stream"),
    Case("asgi-close", "make_asgi()", "Connection: close\n", "/"),
)
