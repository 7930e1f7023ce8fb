"""A Django site with the chat of Channels' tutorial, without Redis: `asgi`, `hybrid` or `uvicorn`,
and a loop.

Prints its port, and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    MIDDLEWARE=[],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import (  # noqa: E402
    FileResponse,
    HttpRequest,
    HttpResponse,
    StreamingHttpResponse,
)
from django.urls import path, re_path  # noqa: E402

from threadwell import ThreadedServer  # noqa: E402


class ChatConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def connect(self) -> None:
        self.group = "chat_" + self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "")["message"]
        event = {"type": "chat.message", "message": message}
        await self.channel_layer.group_send(self.group, event)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps({"message": event["message"]}))


def sync_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("sync")


sync_view.csrf_exempt = True  # type: ignore[attr-defined]


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"async {asyncio.get_running_loop().is_running()}")


async def stream_view(request: HttpRequest) -> StreamingHttpResponse:
    async def numbers() -> AsyncIterator[str]:
        for number in range(5):
            yield f"{number} "
            await asyncio.sleep(0.001)

    return StreamingHttpResponse(numbers())


def sync_stream_view(request: HttpRequest) -> StreamingHttpResponse:
    """A synchronous view with an asynchronous body."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(5):
            yield f"{number} {asyncio.get_running_loop().is_running()} "
            await asyncio.sleep(0.001)

    return StreamingHttpResponse(numbers(), headers={"X-From": "sync"})


def plain_stream_view(request: HttpRequest) -> StreamingHttpResponse:
    """All of it synchronous."""
    return StreamingHttpResponse(f"{number} " for number in range(5))


async def late_view(request: HttpRequest) -> StreamingHttpResponse:
    """An asynchronous view with a synchronous body, of which Django warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StreamingHttpResponse(iter(["a", "b"]))


def file_view(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("stream", stream_view),
    path("sync-stream", sync_stream_view),
    path("plain-stream", plain_stream_view),
    path("late", late_view),
    path("file", file_view),
]

routes = [re_path(r"ws/chat/(?P<room>\w+)/$", ChatConsumer.as_asgi())]
asgi = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(routes)})


def serve_by_uvicorn() -> None:
    import socket

    import uvicorn

    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(asgi, ws="websockets-sansio", log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    print(sock.getsockname()[1], flush=True)
    sys.stdin.read()
    server.should_exit = True
    thread.join()
    sock.close()


if __name__ == "__main__":
    mode, loop = sys.argv[1:]
    warnings.simplefilter("default")
    # what Django says of synchronous bodies under ASGI, and asynchronous ones without
    warnings.filterwarnings("ignore", "StreamingHttpResponse must consume")
    if mode == "uvicorn":
        serve_by_uvicorn()
        sys.exit()
    options: Any = {"bind": "127.0.0.1:0", "loop": loop, "graceful_timeout": 2}
    if mode == "asgi":
        server = ThreadedServer(asgi, **options)
    else:
        server = ThreadedServer(get_wsgi_application(), asgi_app=asgi, **options)
    with server:
        print(server.port, flush=True)
        sys.stdin.read()
