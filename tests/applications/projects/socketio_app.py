"""Flask-SocketIO on threads: echoes, rooms, background tasks, a namespace, a session."""

import sys

from flask import Flask, request, session
from flask_socketio import SocketIO, disconnect, emit, join_room, leave_room

app = Flask(__name__)
app.secret_key = "secret"
socketio = SocketIO(app, async_mode="threading", cors_allowed_origins="*")
left: list[str] = []


@app.get("/")
def index() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return f"visits: {session['visits']}"


@app.get("/left")
def who_left() -> list[str]:
    return left


@socketio.on("connect")
def connect(auth: object = None) -> bool | None:
    return False if auth == {"token": "wrong"} else None


@socketio.on("disconnect")
def gone(reason: str) -> None:
    left.append(reason)


@socketio.on("echo")
def echo(data: object) -> object:
    return data


@socketio.on("join")
def join(room: str) -> None:
    join_room(room)
    emit("joined", room)


@socketio.on("leave")
def leave(room: str) -> None:
    leave_room(room)
    emit("left", room)


@socketio.on("say")
def say(data: dict[str, str]) -> None:
    emit("said", data["text"], to=data["room"])


@socketio.on("count")
def count(number: int) -> None:
    sid = request.sid

    def background() -> None:
        for at in range(number):
            socketio.sleep(0.01)
            socketio.emit("counted", at, to=sid)

    socketio.start_background_task(background)


@socketio.on("bye")
def bye() -> None:
    disconnect()


@socketio.on("echo", namespace="/other")
def other(data: object) -> object:
    return ["other", data]


if __name__ == "__main__":
    socketio.run(app, "127.0.0.1", int(sys.argv[1]), allow_unsafe_werkzeug=True)
