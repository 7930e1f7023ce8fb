"""A Flask application with templates, an upload, a clock of server-sent events, and a chat.

Run it with `flask --app examples/flask/app.py serve` and open the address that is printed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import flask
from flask_sock import Sock

LARGEST_UPLOAD = 16 * 1024 * 1024
MOST_TICKS = 1000

app = flask.Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = LARGEST_UPLOAD
# a client that has gone without a word is noticed by its silence
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25}
sock = Sock(app)

#: The open chats. Sets are changed by single operations, which threads may do at once.
chats: set[Any] = set()


@app.get("/")
def index() -> str:
    """A page that leads to the others."""
    return flask.render_template("index.html")


@app.get("/upload")
def upload_form() -> str:
    """A form for a file."""
    return flask.render_template("upload.html", file=None)


@app.post("/upload")
def upload() -> Any:
    """What is known of a file that was sent. A large one is on disk, and never whole in memory."""
    file = flask.request.files.get("file")
    if file is None or not file.filename:
        return flask.render_template("upload.html", file=None, problem="Choose a file first."), 400
    digest = hashlib.sha256()
    size = 0
    while block := file.stream.read(65536):
        digest.update(block)
        size += len(block)
    facts = {"name": file.filename, "size": size, "digest": digest.hexdigest()}
    return flask.render_template("upload.html", file=facts)


@app.get("/clock")
def clock() -> str:
    """A page that shows the time of the server."""
    return flask.render_template("clock.html")


@app.get("/ticks")
def ticks() -> flask.Response:
    """The time, as server-sent events: `/ticks?pause=1`. It keeps a thread of its own."""
    pause = min(max(flask.request.args.get("pause", 1.0, float), 0.01), 60)
    return flask.Response(_ticks(pause), mimetype="text/event-stream")


def _ticks(pause: float) -> Iterator[str]:
    for number in range(MOST_TICKS):
        yield f"id: {number}\ndata: {time.strftime('%H:%M:%S')}\n\n"
        time.sleep(pause)


@app.get("/chat")
def chat_page() -> str:
    """A page to talk on."""
    return flask.render_template("chat.html")


@sock.route("/chat/socket")
def chat(ws: Any) -> None:
    """What one says, all hear."""
    chats.add(ws)
    try:
        while True:
            message = ws.receive()
            for other in chats.copy():
                say(other, message)
    finally:
        chats.discard(ws)


def say(ws: Any, message: str) -> None:
    """Send `message` to a chat, which may have left just now."""
    try:
        ws.send(message)
    except Exception as error:
        app.logger.info("A chat has left: %s", error)
        chats.discard(ws)
