"""From sync to async and back, through a2wsgi: the slow way, for applications mounted in others.

`to_asgi` runs a WSGI application or a `SyncApp` on threads under an event loop, `to_wsgi` an ASGI
application on a loop under threads. Each block crosses a thread border. A server that serves both
kinds side by side needs neither: see `asgi_app` of `ThreadedServer`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from threadwell.worker import FileBody, Request, RequestReceived, Response, SyncApp, app_kind
from threadwell.worker.messages import Origin, cgi_name

if TYPE_CHECKING:
    from threadwell.worker import HijackedSocket, ResponseStream
    from threadwell.worker.messages import Address, HeaderList

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_BLOCK = 64 * 1024


def to_asgi(app: Any, *, threads: int = 10) -> Any:
    """`app`, a WSGI application or a `SyncApp`, as an ASGI application with `threads` of its own.

    Raises `TypeError` for what is neither, and `ImportError` where a2wsgi is not installed.
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
    """`app`, an ASGI application, as a WSGI application, with a loop on a thread of its own.

    There are no WebSockets and no lifespan. `wait_time` is how many seconds the application may go
    on behind its answer, without end if None. Raises `TypeError` for what is no ASGI application,
    and `ImportError` where a2wsgi is not installed.
    """
    from a2wsgi import ASGIMiddleware

    if app_kind(app) != "asgi":
        raise TypeError(f"{app!r} is not an ASGI application")
    inner: Any = ASGIMiddleware(app, wait_time=wait_time)

    def bridge(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return inner(environ, start_response)  # type: ignore[no-any-return]

    return bridge


def _for_cgi(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` without those that would pass for another as a variable, and with one cookie."""
    kept = []
    cookies = []
    for name, value in headers:
        if name == b"cookie":
            cookies.append(value)
        elif b"_" not in name:
            kept.append((name, value))
    if cookies:
        kept.append((b"cookie", b"; ".join(cookies)))  # RFC 9113, 8.2.3
    return kept


# ---- A SyncApp as a WSGI application -------------------------------------------------------


class _Channel:
    """What a `SyncApp` can do with a connection that belongs to another server."""

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
        """An interim response is a hint, which this server cannot give."""

    def hijack(self, request: Request) -> HijackedSocket:  # noqa: ARG002
        raise RuntimeError("behind a bridge the connection belongs to another server")


def _as_wsgi(app: SyncApp) -> Any:
    def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        response = app(_request(environ))
        if response is None:
            response = Response(501, [("Content-Type", "text/plain")], b"Not Implemented\n")
        status = response.status
        text = status if isinstance(status, str) else f"{status} {_reason(status)}"
        body: Any = response.body
        if response.revise is not None and not isinstance(body, (bytes, list, FileBody)):
            return _Blocks(_revised(response, start_response), response)
        start_response(text, list(response.headers))
        if isinstance(body, FileBody):
            return _Blocks(_file(body), response)
        return _Blocks(iter([body]) if isinstance(body, bytes) else iter(body), response)

    return wsgi


def _reason(status: int) -> str:
    import http

    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def _revised(response: Response, start_response: StartResponse) -> Iterator[bytes]:
    """The body, with status and headers as they are when its first block is there."""
    started = False
    blocks: Any = response.body
    for block in blocks:
        if block and not started:
            started = True
            _start_revised(response, start_response)
        if block:
            yield block
    if not started:
        _start_revised(response, start_response)


def _start_revised(response: Response, start_response: StartResponse) -> None:
    assert response.revise is not None
    status, headers = response.revise()
    text = status if isinstance(status, str) else f"{status} {_reason(status)}"
    start_response(text, list(headers))


class _Blocks:
    """The body of a response; `close` closes what belongs to it."""

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


def _file(body: FileBody) -> Iterator[bytes]:
    with open(body.fd, "rb") as file:
        file.seek(body.offset)
        left = body.count
        while left and (block := file.read(min(left, _BLOCK))):
            left -= len(block)
            yield block


def _request(environ: Environ) -> Request:
    path = quote(environ["PATH_INFO"].encode("latin-1"), safe="/!$&'()*+,;=:@~-._") or "/"
    query = environ.get("QUERY_STRING", "")
    version = environ["SERVER_PROTOCOL"].removeprefix("HTTP/")
    variables = {
        name: value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    lines = [f"{_field(name)}: {value}" for name, value in variables.items()]
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
    data = environ["wsgi.input"].read() if length not in ("", "0") or _chunked(variables) else b""
    body = data if len(data) <= _BLOCK else io.BytesIO(data)
    return Request(head, body, _Channel(environ))


def _chunked(variables: dict[str, str]) -> bool:
    return cgi_name("transfer-encoding") in variables


def _field(variable: str) -> str:
    return variable.removeprefix("HTTP_").replace("_", "-").lower()
