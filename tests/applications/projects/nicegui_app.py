"""NiceGUI: a page with a state for each client, an upload, and a clock of the server."""

import sys

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from nicegui import app as nicegui_app
from nicegui import events, ui


@ui.page("/")
def page() -> None:
    ticks = {"n": 0}
    name = ui.input("name").classes("name")
    ui.button("Greet", on_click=lambda: greeting.set_text(f"Hello {name.value}")).classes("greet")
    greeting = ui.label("nobody").classes("greeting")
    clock = ui.label("0").classes("clock")

    def tick() -> None:
        ticks["n"] += 1
        clock.set_text(str(ticks["n"]))

    ui.timer(0.1, tick)
    uploaded = ui.label("nothing").classes("uploaded")

    async def receive(event: events.UploadEventArguments) -> None:
        content = await event.file.read()
        uploaded.set_text(f"{event.file.name}: {len(content)}")

    ui.upload(on_upload=receive, auto_upload=True).classes("upload")

    async def asks() -> None:
        answer.set_text(str(await ui.run_javascript("6 * 7")))

    ui.button("Ask", on_click=asks).classes("ask")
    answer = ui.label("no answer").classes("answer")


@nicegui_app.get("/clients")
def clients() -> dict[str, int]:
    from nicegui import Client

    return {
        "connected": sum(1 for client in Client.instances.values() if client.has_socket_connection)
    }


if __name__ in {"__main__", "__mp_main__"}:
    ui.run(host="127.0.0.1", port=int(sys.argv[1]), reload=False, show=False)
else:
    app = FastAPI()
    app.add_middleware(GZipMiddleware)  # as `ui.run` does
    ui.run_with(app)
