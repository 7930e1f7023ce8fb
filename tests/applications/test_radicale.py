"""Radicale: a CalDAV and CardDAV server (RFC 4791), used by the library caldav."""

from __future__ import annotations

from pathlib import Path

import requests

from .application import Application, Server, Site
from .environments import Environment


def prepare(environment: Environment, folder: Path) -> None:
    """One user, and a folder of its own."""
    (folder / "users").write_text("user:secret\n")
    (folder / "radicale.ini").write_text(
        "[auth]\ntype = htpasswd\nhtpasswd_filename = users\nhtpasswd_encryption = plain\n"
        "delay = 0\n[storage]\nfilesystem_folder = collections\n"
    )


APPLICATION = Application(
    name="Radicale",
    distribution="radicale",
    requirements=["radicale>=3.5,<4", "caldav>=2,<4"],
    servers={
        "threadwell": Server(
            "threadwell radicale:application --bind 127.0.0.1:{port}",
        ),
        "its own": Server(
            "radicale --config radicale.ini --server-hosts 127.0.0.1:{port}",
        ),
    },
    prepare=prepare,
    environ={"RADICALE_CONFIG": "radicale.ini"},
)


def test_calendar(site: Site) -> None:
    """The caldav client makes a calendar, adds, finds, changes, synchronises and removes events."""
    assert site.client("radicale_client.py") == {
        "before": 0,
        "summary": "Réunion",
        "occurrences": 3,
        "changed": "Moved",
        "synchronised": 50,
        "left": 50,
        "after": 0,
    }


def test_refusals(site: Site) -> None:
    """401 without a password or with a wrong one, 403 in another user's folder, 404."""
    url = f"{site.url}/user/"
    assert requests.request("PROPFIND", url, timeout=30).status_code == 401
    wrong = requests.request("PROPFIND", url, auth=("user", "wrong"), timeout=30)
    assert wrong.status_code == 401
    user = ("user", "secret")
    assert requests.put(f"{site.url}/other/x", auth=user, timeout=30).status_code == 403
    assert requests.get(f"{site.url}/user/no/", auth=user, timeout=30).status_code == 404


def test_pages(site: Site) -> None:
    """The page for browsers: a redirect, and its files."""
    page = requests.get(site.url, timeout=30)
    assert page.url == f"{site.url}/.web/"
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")
    assert "<title>Radicale Web Interface</title>" in page.text


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
