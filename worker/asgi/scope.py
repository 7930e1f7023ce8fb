"""What an ASGI application is told of a connection: its scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from ..connection import RequestSource
    from ..messages import RequestReceived
    from ..tls.session import TLSSocket

Scope = dict[str, Any]
Headers = list[tuple[bytes, bytes]]

#: The versions of the specification that are kept to.
HTTP_SPEC = {"version": "3.0", "spec_version": "2.3"}
WEBSOCKET_SPEC = {"version": "3.0", "spec_version": "2.4"}
LIFESPAN_SPEC = {"version": "3.0", "spec_version": "2.0"}

_HTTP_EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.trailers": {},
}

# Lines that are secret, or that hardly ever come twice, are not worth remembering.
_NEVER_CACHED = frozenset(
    (
        b"authorization cookie proxy-authorization x-csrftoken x-csrf-token x-api-key"
        b" if-none-match if-modified-since referer traceparent x-request-id content-length"
        b" sec-websocket-key"
    ).split()
)
_LONGEST_CACHED_LINE = 256
_MOST_CACHED_LINES = 1024


class Scopes:
    """Makes scopes. Belongs to one loop, for its cache of header lines."""

    def __init__(self, root_path: str) -> None:
        root = root_path.strip("/")
        self._root_path = f"/{root}" if root else ""
        self._lines: dict[bytes, tuple[bytes, bytes]] = {}

    def template(self, conn: RequestSource) -> Scope:
        """What is the same in all HTTP requests of `conn`, unless they come from elsewhere."""
        client, _, (host, port), scheme, prefix, _ = conn.origin
        extensions = _HTTP_EXTENSIONS
        if conn.encrypted:
            from .tls_extension import tls_extension

            if (told := tls_extension(cast("TLSSocket", conn.sock))) is not None:
                extensions = {**extensions, "tls": told}
        return {
            "type": "http",
            "asgi": HTTP_SPEC,
            "http_version": "1.1",
            "server": (host, port or None),
            # of a unix socket's client there is nothing to say
            "client": client if client[0] else None,
            "scheme": scheme,
            "root_path": prefix or self._root_path,
            "extensions": extensions,
        }

    def http(self, template: Scope, head: RequestReceived, headers: Headers) -> Scope:
        """The scope of a request, but for its state. `headers` becomes the application's."""
        scope = template.copy()
        path = head.path
        scope["asgi"] = HTTP_SPEC.copy()
        scope["method"] = head.method
        scope["path"] = scope["root_path"] + (decode_path(path) if "%" in path else path)
        scope["raw_path"] = path.encode("latin-1")
        scope["query_string"] = head.query.encode("latin-1")
        scope["headers"] = headers
        if head.version == "1.0":
            scope["http_version"] = "1.0"
            scope["extensions"] = _among(template, "http.response.pathsend", "tls")
        else:
            scope["extensions"] = template["extensions"].copy()
        return scope

    def websocket(self, template: Scope, head: RequestReceived, headers: Headers) -> Scope:
        """The same for a WebSocket."""
        scope = self.http(template, head, headers)
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"] = WEBSOCKET_SPEC.copy()
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        offered = head.field("sec-websocket-protocol").split(",")
        scope["subprotocols"] = [name.strip() for name in offered if name.strip()]
        scope["extensions"] = {"websocket.http.response": {}, **_among(template, "tls")}
        return scope

    def headers(self, block: bytes) -> Headers:
        """The header lines of `block` (see `RequestReceived`): lower-case names and values."""
        lines = block.split(b"\r\n")
        del lines[0]
        known = self._lines.get
        return [known(line) or self._line(line) for line in lines]

    def _line(self, line: bytes) -> tuple[bytes, bytes]:
        name, _, value = line.partition(b":")
        pair = (name.lower(), value.strip(b" \t"))
        if len(line) <= _LONGEST_CACHED_LINE and pair[0] not in _NEVER_CACHED:
            if len(self._lines) >= _MOST_CACHED_LINES:
                self._lines.clear()
            self._lines[line] = pair
        return pair


def _among(template: Scope, *names: str) -> Scope:
    """Those extensions of the connection that are named."""
    extensions = template["extensions"]
    return {name: extensions[name] for name in names if name in extensions}


def decode_path(path: str) -> str:
    """`path` with its percent-encoding undone, as UTF-8; what is not UTF-8 is replaced."""
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
