"""strawberry: GraphQL with subscriptions, used by gql."""

from __future__ import annotations

import requests

from ..helpers.waiting import until
from .application import Application, Server, Site

APPLICATION = Application(
    name="strawberry",
    distribution="strawberry-graphql",
    requirements=[
        "strawberry-graphql>=0.270",
        "starlette>=0.40",
        "python-multipart>=0.0.18",
        "uvicorn[standard]>=0.35",
        "gql[httpx,websockets]>=3.5,<5",
    ],
    servers={
        "threadwell": Server(
            "threadwell {projects}/graphql_app.py:app --bind 127.0.0.1:{port}",
        ),
        "uvicorn": Server(
            "uvicorn --app-dir {projects} --port {port} graphql_app:app",
            exit_code=-15,
        ),
    },
)


def test_client(site: Site) -> None:
    """gql: a query, a mutation, an upload of 3 MB and an error over HTTP; 20 subscriptions on one
    WebSocket, one that is left early, by both protocols; a query on a WebSocket."""
    assert site.client("graphql_client.py") == {
        "query": {"books": ["Middlemarch"]},
        "mutation": {"add": 2},
        "upload": {"size": 3_000_000},
        "error": "on purpose",
        "graphql-transport-ws": True,
        "graphql-transport-ws: listeners": 1,
        "query on a WebSocket": 2,
        "graphql-ws": True,
        "graphql-ws: listeners": 1,
    }


def test_left(site: Site) -> None:
    """20 WebSockets with an endless subscription are cut; no subscription keeps running."""

    def listeners() -> object:
        answer = requests.post(f"{site.url}/graphql/", json={"query": "{ listeners }"}, timeout=30)
        return answer.json()["data"]

    until(lambda: listeners() == {"listeners": 0})


def test_page(site: Site) -> None:
    """GraphiQL for browsers; 400 for an invalid query, 404 for other paths."""
    url = f"{site.url}/graphql/"
    page = requests.get(url, headers={"Accept": "text/html"}, timeout=30)
    assert (page.status_code, "GraphiQL" in page.text) == (200, True)
    assert requests.post(url, data="no", timeout=30).status_code == 400
    assert requests.get(f"{site.url}/no", timeout=30).status_code == 404


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    # the second one where a subscription sends before it hears that its client has left
    site.end("ValueError: on purpose", "strawberry.http.exceptions.WebSocketDisconnected")
