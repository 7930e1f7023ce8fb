"""The scope of an ASGI connection: the description of a request for the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from .scope_headers import HeaderLists, Headers

if TYPE_CHECKING:
    from ..connection import RequestSource
    from ..messages import Address, Origin, RequestReceived
    from ..tls.session import TLSSocket

Scope = dict[str, Any]

#: The supported versions of the specification.
HTTP_SPEC = {"version": "3.0", "spec_version": "2.3"}
WEBSOCKET_SPEC = {"version": "3.0", "spec_version": "2.4"}
LIFESPAN_SPEC = {"version": "3.0", "spec_version": "2.0"}

# Only what changes nothing for an application, or a middleware, that does not ask for it. A
# framework uses `http.response.pathsend` by itself, hence the option `asgi_pathsend`.
_HTTP_EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.early_hint": {},
    "http.response.trailers": {},
}
_PATHSEND = "http.response.pathsend"


class Scopes:
    """Makes scopes. Belongs to one loop, because of its cache of header lines."""

    def __init__(self, root_path: str, *, pathsend: bool = False) -> None:
        self._extensions = {**_HTTP_EXTENSIONS, _PATHSEND: {}} if pathsend else _HTTP_EXTENSIONS
        root = root_path.strip("/")
        self._root_path = f"/{root}" if root else ""
        # the template of the last server: see `Origin.server`
        self._server: Address | None = None
        self._template: Scope = {}
        lists = HeaderLists()
        #: Makes the `headers` of scopes, from field lines and from heads.
        self.headers, self.headers_of = lists.of, lists.of_head

    def template(self, conn: RequestSource) -> Scope:
        """What the scopes of all HTTP requests from `conn` have in common."""
        origin = conn.origin
        if origin.server is not self._server:
            self._server, self._template = origin.server, self._new_template(origin)
        scope = self._template.copy()
        # the client of a unix socket has no address
        scope["client"] = origin.client if origin.client[0] else None
        scope["scheme"] = origin.scheme
        scope["root_path"] = origin.prefix or self._root_path
        if conn.encrypted:
            from .tls_extension import tls_extension

            if (told := tls_extension(cast("TLSSocket", conn.sock))) is not None:
                scope["extensions"] = {**scope["extensions"], "tls": told}
        return scope

    def _new_template(self, origin: Origin) -> Scope:
        """What the scopes of all requests to the server of `origin` have in common."""
        host, port = origin.server
        # the keys of the request, too, so that a copy is large enough for them
        later = ("method", "path", "raw_path", "query_string", "headers", "state")
        return {
            "type": "http",
            "asgi": HTTP_SPEC,
            "http_version": "1.1",
            "server": (host, port or None),
            **dict.fromkeys(("client", "scheme", "root_path")),
            "extensions": self._extensions,
            **dict.fromkeys(later),
        }

    def http(self, template: Scope, head: RequestReceived, headers: Headers) -> Scope:
        """The scope of an HTTP request, without its state. The scope contains `headers` itself."""
        scope = template.copy()
        path = head.path
        scope["asgi"] = HTTP_SPEC.copy()
        scope["method"] = head.method
        scope["path"] = template["root_path"] + (decode_path(path) if "%" in path else path)
        # a target is ASCII, and other codecs than that of UTF-8 must be looked up
        scope["raw_path"] = path.encode()
        scope["query_string"] = head.query.encode()
        scope["headers"] = headers
        if head.version == "1.0":
            scope["http_version"] = "1.0"
            scope["extensions"] = _among(template, _PATHSEND, "tls")
        else:
            scope["extensions"] = template["extensions"].copy()
        return scope

    def websocket(self, template: Scope, head: RequestReceived, headers: Headers) -> Scope:
        """The scope of a request for a WebSocket, without its state."""
        scope = self.http(template, head, headers)
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"] = WEBSOCKET_SPEC.copy()
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        offered = head.field("sec-websocket-protocol").split(",")
        scope["subprotocols"] = [name.strip() for name in offered if name.strip()]
        scope["extensions"] = {"websocket.http.response": {}, **_among(template, "tls")}
        return scope


class ConnectionScopes:
    """Makes the scopes of the requests of one connection. Belongs to its loop."""

    __slots__ = ("_conn", "_last_head", "_last_scope", "_scopes", "_template")

    def __init__(self, scopes: Scopes, conn: RequestSource) -> None:
        self._scopes = scopes
        self._conn = conn
        self._template = scopes.template(conn)
        # the last head, and its scope if it came twice: a client that polls sends the same head
        # each time
        self._last_head: RequestReceived | None = None
        self._last_scope: Scope | None = None

    def refresh(self) -> None:
        """Take note of a change of the connection: a trusted proxy named another client."""
        self._template = self._scopes.template(self._conn)
        self._last_scope = None

    def http(self, head: RequestReceived) -> Scope:
        """The scope of an HTTP request, without its state."""
        scopes = self._scopes
        if head is not self._last_head:
            self._last_head, self._last_scope = head, None
            return scopes.http(self._template, head, scopes.headers_of(head))
        last = self._last_scope
        if last is None:
            self._last_scope = last = scopes.http(self._template, head, scopes.headers_of(head))
        # the application may change what it gets
        scope = last.copy()
        scope["asgi"] = HTTP_SPEC.copy()
        scope["extensions"] = last["extensions"].copy()
        scope["headers"] = last["headers"].copy()
        return scope

    def websocket(self, head: RequestReceived) -> Scope:
        """The scope of a request for a WebSocket, without its state."""
        return self._scopes.websocket(self._template, head, self._scopes.headers_of(head))


def _among(template: Scope, *names: str) -> Scope:
    """The extensions of `template` that have one of `names`."""
    extensions = template["extensions"]
    return {name: extensions[name] for name in names if name in extensions}


def decode_path(path: str) -> str:
    """`path`, percent-decoded as UTF-8. Invalid UTF-8 becomes U+FFFD."""
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
