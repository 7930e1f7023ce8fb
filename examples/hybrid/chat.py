"""A chat: pages by ordinary views on threads, messages by a consumer of Channels on a loop."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

PAGE = Path(__file__).with_name("room.html").read_text("utf-8")


def room(request: HttpRequest, name: str = "lobby") -> HttpResponse:
    """The page of a room. A view like any other: it runs on a thread."""
    return HttpResponse(PAGE)


async def clock(request: HttpRequest) -> StreamingHttpResponse:
    """Server-sent events: a view that waits most of the time, and so belongs on the loop."""

    async def ticks() -> AsyncIterator[str]:
        for number in range(1, 11):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingHttpResponse(ticks(), content_type="text/event-stream")


class ChatConsumer(AsyncWebsocketConsumer):
    """Whoever is in a room hears what is said there."""

    async def connect(self) -> None:
        self.group = "chat_" + self.scope["url_route"]["kwargs"]["name"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        event = {"type": "chat.message", "message": json.loads(text_data or "{}").get("message")}
        await self.channel_layer.group_send(self.group, event)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps({"message": event["message"]}))


urlpatterns = [path("", room), path("clock/", clock), path("<slug:name>/", room)]
websocket_urlpatterns = [re_path(r"^ws/(?P<name>[\w-]+)/$", ChatConsumer.as_asgi())]
