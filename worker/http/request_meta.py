"""The request fields that control the connection."""

from __future__ import annotations

from ..messages import RequestReceived


class RequestMeta:
    """The fields of a request that control its connection, looked up once."""

    __slots__ = ("accept_encoding", "close", "upgrade", "websocket")

    def __init__(self) -> None:
        #: The connection must close after the response (RFC 9112, 9.3).
        self.close = False
        #: The protocol of the Upgrade field in lower case; empty without a valid upgrade.
        self.upgrade = ""
        self.websocket = False
        self.accept_encoding = ""


# The name on the reference page, which signatures are held to.
_RequestMeta = RequestMeta


def what_is_asked(request: RequestReceived) -> tuple[bool, bool]:
    """Return whether the client keeps the connection open, and whether it asks for a WebSocket."""
    if request.version == "1.1":
        # what nearly all clients send, if they send anything
        option = request.variable("HTTP_CONNECTION", "keep-alive")
        if option == "close":
            return False, False
        if option == "keep-alive":
            return True, False
    meta = classify_request(request)
    return not meta.close, meta.websocket


def classify_request(request: RequestReceived) -> _RequestMeta:
    """Return the fields of `request` that control its connection."""
    meta = RequestMeta()
    variables = request.variables
    if request.version == "1.0":
        meta.close = True
    if "HTTP_CONNECTION" in variables:
        options = [option.strip() for option in variables["HTTP_CONNECTION"].lower().split(",")]
        if "close" in options:
            meta.close = True
        elif "keep-alive" in options:
            meta.close = False
        # RFC 9110, 7.8: ignored in HTTP/1.0, and without the connection option
        if "upgrade" in options and "HTTP_UPGRADE" in variables and request.version == "1.1":
            meta.upgrade = variables["HTTP_UPGRADE"].lower()
            meta.websocket = meta.upgrade == "websocket" and request.method == "GET"
    meta.accept_encoding = variables.get("HTTP_ACCEPT_ENCODING", "")
    return meta
