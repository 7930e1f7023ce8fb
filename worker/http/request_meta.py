"""What the fields of a request say about its connection."""

from __future__ import annotations

from ..messages import RequestReceived


class _RequestMeta:
    """The fields of a request that steer its connection, looked up once."""

    __slots__ = ("accept_encoding", "close", "upgrade", "websocket")

    def __init__(self) -> None:
        #: The client wants the connection closed after the answer (RFC 9112, 9.3).
        self.close = False
        #: The protocol that an upgrade asks for, lower-case; empty without one.
        self.upgrade = ""
        self.websocket = False
        self.accept_encoding = ""


def _classify_request(request: RequestReceived) -> _RequestMeta:
    """What `request` says about its connection; its fields are joined already."""
    meta = _RequestMeta()
    variables = request.variables
    if request.version == "1.0":
        meta.close = True
    if "HTTP_CONNECTION" in variables:
        options = [option.strip() for option in variables["HTTP_CONNECTION"].lower().split(",")]
        if "close" in options:
            meta.close = True
        elif "keep-alive" in options:
            meta.close = False
        # RFC 9110, 7.8: not from HTTP/1.0, and only with the connection option
        if "upgrade" in options and "HTTP_UPGRADE" in variables and request.version == "1.1":
            meta.upgrade = variables["HTTP_UPGRADE"].lower()
            meta.websocket = meta.upgrade == "websocket" and request.method == "GET"
    meta.accept_encoding = variables.get("HTTP_ACCEPT_ENCODING", "")
    return meta
