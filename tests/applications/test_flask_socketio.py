"""Flask-SocketIO on threads, used by python-socketio's client."""

from __future__ import annotations

import collections

import requests

from ..helpers.waiting import until
from .application import Application, Server, Site

APPLICATION = Application(
    name="Flask-SocketIO",
    distribution="flask-socketio",
    requirements=[
        "flask-socketio>=5.5,<6",
        "simple-websocket>=1.1",
        "gunicorn>=23",
        "requests>=2.32",
        "websocket-client>=1.8",
    ],
    servers={
        "threadwell": Server(
            "threadwell {projects}/socketio_app.py:app --bind 127.0.0.1:{port} --threads 20",
        ),
        "gunicorn": Server(
            "gunicorn --chdir {projects} --bind 127.0.0.1:{port} --worker-class gthread "
            "--threads 20 socketio_app:app",
        ),
        "its own (Werkzeug)": Server(
            "python {projects}/socketio_app.py {port}",
            exit_code=-15,
        ),
    },
)

EXPECTED = {
    "echo": {"text": "é", "bytes": "00ff"},
    "binary": True,
    "large": 500_000,
    "other": ["other", 1],
    "room": [["said", "all"], ["said", "all"]],
    "left": [["said", "fewer"]],
    "count": True,
    "ended": "server disconnect",
    "refused": "One or more namespaces failed to connect",
    "many": [0, 1, 2, 3],
}


def test_websocket(site: Site) -> None:
    """The client over a WebSocket: echoes of text, bytes and 500 KB, rooms, a second namespace,
    100 events of a background task, an end by the server, a refusal, 4 clients at once."""
    assert site.client("socketio_client.py", "websocket") == {**EXPECTED, "transport": "websocket"}


def test_polling(site: Site) -> None:
    """The same by long polling."""
    assert site.client("socketio_client.py", "polling") == {**EXPECTED, "transport": "polling"}


def test_upgrade(site: Site) -> None:
    """The same, begun by polling and upgraded to a WebSocket."""
    found = site.client("socketio_client.py", "polling,websocket")
    assert found == {**EXPECTED, "transport": "websocket"}


def test_left(site: Site) -> None:
    """The application is told of every client's end, and still answers requests."""

    def reasons() -> collections.Counter[str]:
        return collections.Counter(requests.get(f"{site.url}/left", timeout=30).json())

    until(lambda: reasons().total() == 18)
    # "client disconnect" or "transport close", as the packet or the closed socket comes first
    assert reasons()["server disconnect"] == 3
    session = requests.Session()
    assert session.get(site.url, timeout=30).text == "visits: 1"
    assert session.get(site.url, timeout=30).text == "visits: 2"


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    # gunicorn has closed the socket when the library writes its close frame
    site.end("OSError: [Errno 9] Bad file descriptor" if site.server == "gunicorn" else "")
