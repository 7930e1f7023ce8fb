"""A Flask application that is served for a while, by a process that has no event loop at all."""

from __future__ import annotations

import sys

import flask

from threadwell import ThreadedServer

app = flask.Flask(__name__)


@app.get("/")
def index() -> dict[str, bool]:
    """Whether asyncio was imported by now."""
    return {"asyncio": "asyncio" in sys.modules}


@app.get("/stream")
def stream() -> flask.Response:
    """A body that is being made."""
    return flask.Response(("x" for _ in range(3)), mimetype="text/plain")


@app.post("/")
def post() -> bytes:
    """The body, sent back."""
    return flask.request.get_data()


def main() -> None:
    """Serve until standard input ends; then say whether asyncio is there."""
    with ThreadedServer(app, bind="127.0.0.1:0", threads=2) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
    sys.stdout.write(f"asyncio: {'asyncio' in sys.modules}\n")


if __name__ == "__main__":
    main()
