"""Gradio inside FastAPI, as its manual mounts it: a function, a stream, a queue, a file, a chat."""

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from fastapi import FastAPI


def greet(name: str) -> str:
    return f"Hello {name}"


def count(number: float) -> Iterator[str]:
    for at in range(int(number)):
        time.sleep(0.02)
        yield f"{at + 1} of {int(number)}"


def size(path: str | None) -> int:
    return len(Path(path or "").read_bytes())


def shout(path: str | None) -> str:
    result = Path("shouted.txt")
    result.write_text(Path(path or "").read_text().upper())
    return str(result.resolve())


def fails() -> None:
    raise gr.Error("on purpose", print_exception=False)


with gr.Blocks(title="Demo") as demo:
    name = gr.Textbox(label="name", elem_id="name")
    greeting = gr.Textbox(label="greeting", elem_id="greeting")
    gr.Button("Greet", elem_id="greet").click(greet, name, greeting, api_name="greet")
    number = gr.Number(5, label="number")
    counted = gr.Textbox(label="counted", elem_id="counted")
    gr.Button("Count", elem_id="count").click(count, number, counted, api_name="count")
    given = gr.File(label="given")
    length = gr.Number(label="length")
    gr.Button("Size").click(size, given, length, api_name="size")
    gr.Button("Shout").click(shout, given, gr.File(label="shouted"), api_name="shout")
    gr.Button("Fail").click(fails, api_name="fails")

app = gr.mount_gradio_app(FastAPI(), demo, path="/", allowed_paths=["."], show_error=True)

if __name__ == "__main__":
    import sys

    demo.queue().launch(
        server_name="127.0.0.1",
        server_port=int(sys.argv[1]),
        allowed_paths=["."],
        show_error=True,
    )
