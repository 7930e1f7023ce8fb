"""Bridges between WSGI and ASGI, made with a2wsgi, for an application mounted in another one.

`to_asgi` runs a WSGI application or a `SyncApp` on threads below an event loop, `to_wsgi` an ASGI
application on an event loop below threads. Both are slow: each block goes from one thread to
another. A server that serves both kinds side by side needs no bridge: see `asgi_app` of
`ThreadedServer`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from threadwell.worker import (
    FileBody,
    Origin,
    Request,
    RequestReceived,
    Response,
    SyncApp,
    app_kind,
    cgi_name,
    mistake_of,
)

if TYPE_CHECKING:
    from threadwell.worker import Address, HeaderList, HijackedSocket, ResponseStream

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_BLOCK = 64 * 1024


def to_asgi(app: Any, *, threads: int = 10) -> Any:
    """An ASGI application that runs `app`, a WSGI application or a `SyncApp`, on its own threads.

    `threads` is their number. Raises `TypeError` if `app` is neither, and `ImportError` if a2wsgi
    is not installed.
    """
    from a2wsgi import WSGIMiddleware

    kind = app_kind(app)
    if kind == "asgi":
        raise TypeError(f"{app!r} is an ASGI application already")
    inner: Any = WSGIMiddleware(_as_wsgi(app) if kind == "sync" else app, workers=threads)

    async def bridge(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": _for_cgi(scope["headers"])}
        await inner(scope, receive, send)

    return bridge


def to_wsgi(app: Any, *, wait_time: float | None = None) -> Any:
    """A WSGI application that runs the ASGI application `app` on an event loop in its own thread.

    WebSockets and lifespan are not supported. `wait_time` is the number of seconds that `app` may
    go on after its response, without a limit if None. Raises `TypeError` if `app` is no ASGI
    application, and `ImportError` if a2wsgi is not installed.
    """
    from a2wsgi import ASGIMiddleware

    if app_kind(app) != "asgi":
        raise TypeError(f"{app!r} is not an ASGI application")
    inner: Any = ASGIMiddleware(app, wait_time=wait_time)

    def bridge(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return inner(environ, start_response)  # type: ignore[no-any-return]

    return bridge


def _for_cgi(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` as CGI can carry them: with one cookie, and no name that contains `_`.

    `a_b` and `a-b` become the same variable, so a client could forge a header.
    """
    kept = []
    cookies = []
    for name, value in headers:
        if name == b"cookie":
            cookies.append(value)
        elif b"_" not in name:
            kept.append((name, value))
    if cookies:
        kept.append((b"cookie", b"; ".join(cookies)))  # RFC 9113, section 8.2.3
    return kept


# ---- A SyncApp as a WSGI application -------------------------------------------------------


class _Channel:
    """The `Channel` of a `SyncApp` below another server, which owns the connection."""

    def __init__(self, environ: Environ) -> None:
        port = int(environ.get("REMOTE_PORT") or 0)
        self.peer: Address = (str(environ.get("REMOTE_ADDR", "")), port)
        self.origin = Origin(
            client=self.peer,
            client_port=str(port),
            server=(str(environ["SERVER_NAME"]), int(environ["SERVER_PORT"] or 0)),
            scheme=str(environ["wsgi.url_scheme"]),
            prefix=str(environ.get("SCRIPT_NAME", "")),
        )
        self.notes: dict[Any, Any] = {}
        self.headers_sent = False
        self.tls: dict[str, str] = {}

    def stream(self, request: Request, response: Response) -> ResponseStream:  # noqa: ARG002
        raise RuntimeError("behind a bridge a body cannot be pushed; return an iterable")

    def inform(self, request: Request, status: int, headers: HeaderList) -> None:
        """Do nothing: an interim response is optional, and WSGI has none."""

    def hijack(self, request: Request) -> HijackedSocket:  # noqa: ARG002
        raise RuntimeError("behind a bridge the connection belongs to another server")


def _as_wsgi(app: SyncApp) -> Any:
    def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        response = app(_request_of(environ))
        if response is None:
            response = Response(501, [("Content-Type", "text/plain")], b"Not Implemented\n")
        try:
            status = response.status
        except AttributeError as error:
            raise TypeError(mistake_of(app, response, error)) from None
        text = status if isinstance(status, str) else f"{status} {_reason(status)}"
        body: Any = response.body
        if response.revise is not None and not isinstance(body, (bytes, list, FileBody)):
            return _ResponseBody(_with_late_head(response, start_response), response)
        start_response(text, list(response.headers))
        if isinstance(body, FileBody):
            return _ResponseBody(_read_file(body), response)
        return _ResponseBody(iter([body]) if isinstance(body, bytes) else iter(body), response)

    return wsgi


def _reason(status: int) -> str:
    import http

    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def _with_late_head(response: Response, start_response: StartResponse) -> Iterator[bytes]:
    """The body of `response`. Its first block fixes the status and the headers."""
    started = False
    blocks: Any = response.body
    for block in blocks:
        if block and not started:
            started = True
            _start_late(response, start_response)
        if block:
            yield block
    if not started:
        _start_late(response, start_response)


def _start_late(response: Response, start_response: StartResponse) -> None:
    assert response.revise is not None
    status, headers = response.revise()
    text = status if isinstance(status, str) else f"{status} {_reason(status)}"
    start_response(text, list(headers))


class _ResponseBody:
    """The iterable that WSGI gets for `response`. Its `close` closes the response, too."""

    def __init__(self, blocks: Iterator[bytes], response: Response) -> None:
        self._blocks = blocks
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        body = self._response.body
        of_blocks = None if self._blocks is body else getattr(self._blocks, "close", None)
        for close in (of_blocks, self._response.close or getattr(body, "close", None)):
            if close is not None:
                close()


def _read_file(body: FileBody) -> Iterator[bytes]:
    with open(body.fd, "rb") as file:
        file.seek(body.offset)
        left = body.count
        while left and (block := file.read(min(left, _BLOCK))):
            left -= len(block)
            yield block


def _request_of(environ: Environ) -> Request:
    path = quote(environ["PATH_INFO"].encode("latin-1"), safe="/!$&'()*+,;=:@~-._") or "/"
    query = environ.get("QUERY_STRING", "")
    version = environ["SERVER_PROTOCOL"].removeprefix("HTTP/")
    variables = {
        name: value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    lines = [f"{_field_name(name)}: {value}" for name, value in variables.items()]
    length = variables.get("CONTENT_LENGTH", "")
    head = RequestReceived(
        environ["REQUEST_METHOD"],
        f"{path}?{query}" if query else path,
        path,
        query,
        "1.0" if version == "1.0" else "1.1",
        "\r\n".join([f"HTTP/{version}", *lines]).encode("latin-1"),
        variables,
        int(length) if length.isdigit() else None,
    )
    data = (
        environ["wsgi.input"].read() if length not in ("", "0") or _is_chunked(variables) else b""
    )
    body = data if len(data) <= _BLOCK else io.BytesIO(data)
    return Request(head, body, _Channel(environ))


def _is_chunked(variables: dict[str, str]) -> bool:
    return cgi_name("transfer-encoding") in variables


def _field_name(variable: str) -> str:
    return variable.removeprefix("HTTP_").replace("_", "-").lower()
