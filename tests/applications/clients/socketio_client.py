"""python-socketio's client: `polling`, `websocket`, or both, which begins with the first."""

import json
import queue
import sys

import socketio

url, transports = sys.argv[1], sys.argv[2].split(",")


class User:
    """A client, and what it hears."""

    def __init__(self) -> None:
        self.client = socketio.Client()
        self.heard: queue.Queue[list[object]] = queue.Queue()
        self.client.on("*", lambda event, *data: self.heard.put([event, *data]))
        self.ended: queue.Queue[str] = queue.Queue()
        self.client.on("disconnect", self.ended.put)
        self.client.connect(url, transports=transports, namespaces=["/", "/other"])

    def hears(self, count: int = 1) -> list[list[object]]:
        """The next events."""
        return [self.heard.get(timeout=30) for _ in range(count)]


found: dict[str, object] = {}
first, second = User(), User()
found["echo"] = first.client.call("echo", {"text": "é", "bytes": b"\x00\xff".hex()})
found["binary"] = first.client.call("echo", b"\x00\xff" * 1000) == b"\x00\xff" * 1000
found["large"] = len(first.client.call("echo", "x" * 500_000))
found["other"] = first.client.call("echo", 1, namespace="/other")
for user in (first, second):
    user.client.emit("join", "room")
    assert user.hears() == [["joined", "room"]]
first.client.emit("say", {"room": "room", "text": "all"})
found["room"] = first.hears() + second.hears()
second.client.emit("leave", "room")
second.hears()
first.client.emit("say", {"room": "room", "text": "fewer"})
found["left"] = first.hears()
assert second.heard.empty()
second.client.emit("count", 100)
# the client calls its handlers on threads, so in no order
found["count"] = sorted(second.hears(100)) == [["counted", at] for at in range(100)]
found["transport"] = first.client.transport()
second.client.emit("bye")
found["ended"] = second.ended.get(timeout=30)
try:
    socketio.Client().connect(url, transports=transports, auth={"token": "wrong"})
except socketio.exceptions.ConnectionError as error:
    found["refused"] = str(error).partition(":")[0]
many = [User() for _ in range(4)]
found["many"] = [user.client.call("echo", number) for number, user in enumerate(many)]
for user in [first, second, *many]:
    user.client.disconnect()
print(json.dumps(found))
