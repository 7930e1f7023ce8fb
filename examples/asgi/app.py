"""FastAPI on an event loop: a database from lifespan, server-sent events, and a WebSocket."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel

PAGE = Path(__file__).with_name("index.html").read_text("utf-8")


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, sqlite3.Connection]]:
    """Opened before the first request, closed after the last; in between `request.state` has it."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("create table notes (id integer primary key, text text not null)")
    yield {"database": database}
    database.close()


app = FastAPI(lifespan=lifespan)


class Note(BaseModel):
    text: str


def texts(database: sqlite3.Connection) -> list[str]:
    return [row[0] for row in database.execute("select text from notes order by id")]


@app.get("/", response_class=HTMLResponse)
async def index() -> str:
    return PAGE


@app.get("/notes")
async def notes(request: Request) -> list[str]:
    return texts(request.state.database)


@app.post("/notes", status_code=201)
async def add(note: Note, request: Request) -> Note:
    request.state.database.execute("insert into notes (text) values (?)", [note.text])
    return note


@app.get("/events")
async def events(request: Request, pause: float = 0.5) -> StreamingResponse:
    """The number of notes, whenever it has changed, as server-sent events."""

    async def changes() -> AsyncIterator[str]:
        before = -1
        while True:
            count = len(texts(request.state.database))
            if count != before:
                before = count
                yield f"data: {count}\n\n"
            await asyncio.sleep(pause)

    return StreamingResponse(changes(), media_type="text/event-stream")


@app.websocket("/shout")
async def shout(websocket: WebSocket) -> None:
    """Whatever is said comes back louder, with the notes so far."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            said = await websocket.receive_text()
            count = len(texts(websocket.state.database))
            await websocket.send_json({"shouted": said.upper(), "notes": count})
