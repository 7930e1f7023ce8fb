"""FastMCP: the Model Context Protocol over streamable HTTP, used by FastMCP's client."""

from __future__ import annotations

import requests

from .application import Application, Server, Site

APPLICATION = Application(
    name="FastMCP",
    distribution="fastmcp",
    requirements=["fastmcp>=2,<4"],
    servers={
        "threadwell": Server(
            "threadwell {projects}/mcp_app.py:app --bind 127.0.0.1:{port}",
        ),
        "its own (uvicorn)": Server(
            "python {projects}/mcp_app.py {port}",
            exit_code=-15,
        ),
    },
)


def test_client(site: Site) -> None:
    """The client calls tools, also 20 at once and with 1 MB, gets progress and logs while they
    run, answers questions and sampling, reads a resource and a prompt; 10 sessions at once."""
    assert site.client("mcp_client.py") == {
        "tools": ["add", "ask", "fails", "large", "think", "work"],
        "add": 5,
        "work": "done",
        "progress": [1.0, 2.0, 3.0, 4.0, 5.0],
        "logs": ["step 1", "step 2", "step 3", "step 4", "step 5"],
        "elicitation": "Hello Ada",
        "sampling": "It is 42",
        "large": 1_000_000,
        "resource": "of one",
        "prompt": "Review x",
        "at once": True,
        "error": "on purpose",
        "sessions": 10,
    }


def test_refusals(site: Site) -> None:
    """406 without the two media types, 400 for invalid JSON, 404 for other paths."""
    url = f"{site.url}/mcp"
    assert (
        requests.post(url, json={}, headers={"Accept": "text/html"}, timeout=30).status_code == 406
    )
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    assert requests.post(url, data="{", headers=headers, timeout=30).status_code == 400
    assert requests.get(f"{site.url}/no", timeout=30).status_code == 404


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    # FastMCP logs it where a session ends whose client still listens, under both servers
    site.end("anyio.ClosedResourceError")
