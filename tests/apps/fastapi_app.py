"""What FastAPI documents: dependencies, background tasks, lifespan, streaming, WebSockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    HTTPException,
    Query,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel


def fastapi_app(said: list[Any]) -> Any:  # noqa: C901
    models: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models["double"] = lambda number: number * 2
        yield
        models.clear()
        said.append("cleared")

    app = FastAPI(lifespan=lifespan)

    class Item(BaseModel):
        name: str
        price: float
        tags: set[str] = set()

    class Connections:
        def __init__(self) -> None:
            self.active: list[WebSocket] = []

        async def connect(self, websocket: WebSocket) -> None:
            await websocket.accept()
            self.active.append(websocket)

        async def broadcast(self, text: str) -> None:
            for each in self.active:
                await each.send_text(text)

    connections = Connections()

    async def database() -> AsyncIterator[str]:
        said.append("opened")
        try:
            yield "session"
        finally:
            said.append("closed")

    async def token_of(
        websocket: WebSocket, session: str | None = Cookie(None), token: str | None = Query(None)
    ) -> str:
        if session is None and token is None:
            raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION)
        return session or token or ""

    @app.middleware("http")
    async def timed(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Process-Time"] = "0"
        return response

    @app.exception_handler(KeyError)
    async def missing(request: Request, error: KeyError) -> Any:
        return PlainTextResponse(f"no {error}", status_code=404)

    @app.get("/double/{number}")
    async def double(number: int, limit: int = Query(10, ge=1)) -> dict[str, int]:
        return {"result": models["double"](number), "limit": limit}

    @app.get("/sync/{name}")
    def sync(name: str, session: str = Depends(database)) -> dict[str, str]:
        if name == "missing":
            raise KeyError(name)
        if name == "refused":
            raise HTTPException(403, "not you")
        return {"name": name, "session": session}

    @app.post("/items", status_code=201)
    async def items(item: Item, background: BackgroundTasks) -> Item:
        background.add_task(said.append, f"mail about {item.name}")
        return item

    @app.get("/video")
    async def video(session: str = Depends(database)) -> StreamingResponse:
        async def frames() -> AsyncIterator[bytes]:
            for number in range(10):
                yield b"frame %d " % number
                await asyncio.sleep(0.001)

        return StreamingResponse(frames(), media_type="video/mp4")

    @app.websocket("/chat/{client}")
    async def chat(websocket: WebSocket, client: int) -> None:
        await connections.connect(websocket)
        try:
            while True:
                text = await websocket.receive_text()
                await connections.broadcast(f"{client}: {text}")
        except WebSocketDisconnect as error:
            connections.active.remove(websocket)
            said.append(["left", client, error.code])
            await connections.broadcast(f"{client} left")

    @app.websocket("/items/{item}")
    async def item_socket(websocket: WebSocket, item: str, who: str = Depends(token_of)) -> None:
        await websocket.accept()
        await websocket.send_text(f"{who} at {item}")
        await websocket.close()

    sub = FastAPI()

    @sub.get("/where")
    async def where(request: Request) -> dict[str, str]:
        return {"root": request.scope["root_path"], "url": str(request.url)}

    app.mount("/sub", sub)
    return app
