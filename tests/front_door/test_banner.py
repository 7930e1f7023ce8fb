"""The start message about WebSockets."""

from __future__ import annotations

import sys

import pytest

from threadwell.banner import start_message, websocket_notes
from threadwell.worker import Request, Response, Server, ServerConfig

NOTE = "WebSockets are refused: wsproto is missing; pip install 'threadwell[asgi]'"


def app(request: Request) -> Response:
    return Response(200)


@pytest.mark.parametrize(
    ("kind", "tells"),
    [("wsgi", False), ("asgi", True), ("wsgi, with site:asgi", True), ("asgi, DEBUG is on", True)],
)
def test_websockets_without_wsproto(
    monkeypatch: pytest.MonkeyPatch, kind: str, tells: bool
) -> None:
    server = Server(app, ServerConfig.from_options(bind="127.0.0.1:0"))
    assert NOTE not in start_message(server, "site:app", kind)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    assert (f"\n  {NOTE}\n" in start_message(server, "site:app", kind)) is tells
    assert websocket_notes() == [NOTE]
