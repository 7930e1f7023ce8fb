"""Datasette: an ASGI application over SQLite, used by its JSON API."""

from __future__ import annotations

import csv
import io
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from .application import Application, Server, Site
from .environments import Environment

ROWS = 50_000


def prepare(environment: Environment, folder: Path) -> None:
    """A table of many rows, and one with a blob."""
    with sqlite3.connect(folder / "data.db") as database:
        database.execute("create table numbers (id integer primary key, name text, square integer)")
        rows = ((at, f"number {at}", at * at) for at in range(1, ROWS + 1))
        database.executemany("insert into numbers values (?, ?, ?)", rows)
        database.execute("create table files (id integer primary key, content blob)")
        database.execute("insert into files values (1, ?)", (bytes(range(256)) * 1000,))
    database.close()


APPLICATION = Application(
    name="Datasette",
    distribution="datasette",
    requirements=["datasette>=0.65,<0.66"],
    servers={
        "threadwell": Server(
            "threadwell {projects}/datasette_app.py:app --bind 127.0.0.1:{port}",
        ),
        "its own (uvicorn)": Server(
            "datasette serve data.db --port {port} --setting max_csv_mb 100",
            exit_code=-15,
        ),
    },
    prepare=prepare,
)


def test_pages(site: Site) -> None:
    """The pages of the database, a table and a row, and a stylesheet."""
    for path, text in {
        "/": "/data/numbers",
        "/data/numbers": "number 1",
        "/data/numbers/7": "number 7",
        "/-/static/app.css": "font-family",
    }.items():
        answer = requests.get(site.url + path, timeout=30)
        assert (path, answer.status_code) == (path, 200)
        assert text in answer.text


def test_json(site: Site) -> None:
    """JSON of a table, filtered, and of a query with a parameter."""
    rows = requests.get(f"{site.url}/data/numbers.json?square=49&_shape=array", timeout=30).json()
    assert rows == [{"id": 7, "name": "number 7", "square": 49}]
    query = {"sql": "select sum(square) as total from numbers where id < :n", "n": 4}
    answer = requests.get(f"{site.url}/data.json", {**query, "_shape": "arrayfirst"}, timeout=30)
    assert answer.json() == [14]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert requests.get(f"{site.url}/-/versions.json", timeout=30).json()["asgi"] == "3.0"


def test_framing(site: Site) -> None:
    """The framing of a page, and of an answer to HEAD, for which Datasette gives no length."""
    page = requests.get(site.url, timeout=30)
    framing = {"Content-Length", "Transfer-Encoding"}.intersection(page.headers)
    site.differs(
        "Framing of a page",
        *framing,
        usual={"its own (uvicorn)": "Transfer-Encoding"},
        ours="Content-Length",
        why="Datasette gives no length; threadwell says it, since the page comes in one message.",
    )
    head = requests.head(site.url, timeout=30)
    assert (head.status_code, head.headers.get("Content-Length")) == (200, None)


def test_stream(site: Site) -> None:
    """A CSV of 50,000 rows, streamed."""
    answer = requests.get(f"{site.url}/data/numbers.csv?_stream=1", timeout=60)
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert (answer.status_code, len(rows)) == (200, ROWS + 1)
    assert rows[-1] == ["50000", "number 50000", "2500000000"]
    assert answer.headers["Transfer-Encoding"] == "chunked"


def test_blob(site: Site) -> None:
    """A blob of 256 kB, byte by byte."""
    answer = requests.get(f"{site.url}/data/files/1.blob?_blob_column=content", timeout=30)
    assert answer.status_code == 200
    assert answer.content == bytes(range(256)) * 1000


def test_refusals(site: Site) -> None:
    """404 for what does not exist, 400 for SQL that fails and for SQL that writes."""
    assert requests.get(f"{site.url}/no", timeout=30).status_code == 404
    assert requests.get(f"{site.url}/data.json?sql=select+no", timeout=30).status_code == 400
    writes = requests.get(f"{site.url}/data.json?sql=delete+from+numbers", timeout=30)
    assert writes.status_code == 400
    assert requests.head(f"{site.url}/data", timeout=30).status_code == 200


def test_at_once(site: Site) -> None:
    """200 queries by 16 clients."""

    def name(at: int) -> str:
        url = f"{site.url}/data/numbers/{at}.json?_shape=array"
        return str(requests.get(url, timeout=60).json()[0]["name"])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(name, range(1, 201))) == [f"number {at}" for at in range(1, 201)]


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
