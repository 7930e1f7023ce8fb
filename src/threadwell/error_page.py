"""The page that browsers see while the code cannot be loaded. For development.

    ErrorPage       the page, as an application
    serve_error     serves it in the parent of a reloader, on the sockets of the parent
    SelfReloading   makes the error pages of another application reload themselves, too

A script in the page asks every half second whether the same process still answers. Once another one
does, it reloads the page: the code is mended, or the error is another one.
"""

from __future__ import annotations

import contextlib
import html
import ipaddress
import re
import secrets
from typing import TYPE_CHECKING, Any

from .binding import adopt_socket
from .worker import ConfigError, Response, Server, ServerConfig, Threads

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .worker import Request

#: The header whose value says which page this is.
MARK = "Threadwell-Error"

# The most characters of a text that are shown: its end, where the error is.
_MOST_TEXT = 100_000
# Headers that show that a request came through a proxy.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_HIDDEN = (
    "The error is in the terminal of the server. It is shown here to clients on the same machine."
)
_RELOADS = "This page reloads when a change has fixed it."
_STAYS = "Send the request again when a change has fixed it."
_TITLE = "The application cannot be loaded"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }}
h1 {{ font-size: 1.4em; color: #a00 }}
pre {{ padding: 1em; background: #f4f4f4; white-space: pre-wrap; overflow-wrap: anywhere }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #ddd; background: #1a1a1a }} h1 {{ color: #f77 }} pre {{ background: #262626 }}
}}
</style></head>
<body><h1>{title}</h1><pre>{text}</pre><p>{advice}</p>
{script}</body></html>
"""
# `redirect`: a redirect to another site could not be followed, and shows that another process
# answers. A hidden tab asks nothing until it is shown.
_SCRIPT = """<script nonce="{mark}">
(function () {{
  async function look() {{
    try {{
      if (!document.hidden) {{
        const asked = {{method: "HEAD", cache: "no-store", redirect: "manual"}};
        const answer = await fetch(location.href, asked);
        if (answer.headers.get("{name}") !== "{mark}") return location.reload();
      }}
    }} catch (error) {{ /* The server restarts. */ }}
    setTimeout(look, 500);
  }}
  setTimeout(look, 500);
}})();
</script>
"""


def is_loopback(host: str) -> bool:
    """Whether a client with the address `host` is on this machine; empty: it has a unix socket."""
    if not host:
        return True
    try:
        client = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return bool((getattr(client, "ipv4_mapped", None) or client).is_loopback)


def may_see_source(request: Request) -> bool:
    """Whether the client may see the source of the project, as in a traceback.

    It is on this machine, no proxy stands for it, and it has asked for a name of this machine: with
    another name, a page of any site may read the answer (DNS rebinding).
    """
    if any(request.header(name) for name in _FORWARDED):
        return False
    return (
        is_loopback(request.peer[0])
        and is_loopback(request.client[0])
        and _is_local_name(request.header("Host"))
    )


class ErrorPage:
    """A `SyncApp` that answers every request with `text`, which says why there is no application.

    A client that may not see the source learns only that there is an error: see `may_see_source`.

    Any thread may call it.
    """

    def __init__(self, text: str) -> None:
        self._text = _COLOURS.sub("", text).strip()[-_MOST_TEXT:]
        self._mark = secrets.token_hex(8)

    def __call__(self, request: Request) -> Response:
        text = self._text if may_see_source(request) else _HIDDEN
        headers = [(MARK, self._mark), ("Cache-Control", "no-store"), ("Vary", "Accept")]
        if "text/html" not in request.header("Accept"):
            body = f"{_TITLE}\n\n{text}\n"
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        else:
            # A script must not send a form again.
            reloads = request.method in ("GET", "HEAD")
            body = _PAGE.format(
                title=_TITLE,
                text=html.escape(text),
                advice=_RELOADS if reloads else _STAYS,
                script=_SCRIPT.format(name=MARK, mark=self._mark) if reloads else "",
            )
            policy = (
                "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self';"
                f" script-src 'nonce-{self._mark}'"
            )
            headers += [
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Security-Policy", policy),
            ]
        return Response(500, headers, body.encode(errors="replace"))


def _is_local_name(host: str) -> bool:
    name = re.sub(r":[0-9]*$", "", host).strip("[]").lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or (name != "" and is_loopback(name))


def serve_error(
    text: str,
    config: ServerConfig,
    sockets: Sequence[socket.socket],
    ssl_context: ssl.SSLContext | None = None,
) -> Server:
    """Answer what arrives on `sockets` with an `ErrorPage` of `text`, from threads.

    Of `config`, it uses where and how to listen. Stop the `Server` to end it; the sockets stay open
    and keep their backlog. Raises `ConfigError` if something of `config` cannot be used, and
    `OSError` if the system refuses a thread or a descriptor.
    """
    copies: list[socket.socket] = []
    try:
        # Other classes than `SharedSocket` refuse new connections when they are closed.
        copies += [adopt_socket(sock.dup().detach()) for sock in sockets]
        server = Server(
            ErrorPage(text), _listening(config), sockets=copies, ssl_context=ssl_context
        )
        server.start()
    except BaseException as error:
        for sock in copies:
            sock.close()
        if isinstance(error, ConfigError):
            raise ConfigError(f"the error page cannot be served: {error}") from None
        raise
    return server


def _listening(config: ServerConfig) -> ServerConfig:
    """Where and how `config` listens, without its logs, metrics and event loops."""
    return ServerConfig(
        bind=config.bind,
        threads=Threads(count=2),
        tls=config.tls,
        proxies=config.proxies,
        limits=config.limits,
    )


class SelfReloading:
    """A WSGI application: `app`, whose error pages reload themselves once another process serves.

    It adds the script to HTML with the status 500, such as that of Werkzeug's debugger, if the
    method is GET: a script must not send a form again.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._mark = secrets.token_hex(8)
        self._script = _SCRIPT.format(name=MARK, mark=self._mark).encode()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterator[bytes]:
        reloads = False

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal reloads
            found = {name.lower(): value for name, value in headers}
            reloads = (
                environ["REQUEST_METHOD"] == "GET"
                and status.startswith("500")
                and found.get("content-type", "").startswith("text/html")
            )
            if reloads and "content-length" in found:
                length = int(found["content-length"]) + len(self._script)
                headers = [pair for pair in headers if pair[0].lower() != "content-length"]
                headers.append(("Content-Length", str(length)))
            return start_response(status, [*headers, (MARK, self._mark)], exc_info)

        body = self._app(environ, start)
        try:
            yield from body
            if reloads:
                yield self._script
        finally:
            with contextlib.suppress(AttributeError):
                body.close()  # type: ignore[attr-defined]
