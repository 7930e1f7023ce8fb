"""A server of the Model Context Protocol: tools, progress, logs, resources, prompts, questions."""

import asyncio
import sys

from fastmcp import Context, FastMCP

server = FastMCP("tests")


@server.tool
def add(a: int, b: int) -> int:
    return a + b


@server.tool
async def work(context: Context) -> str:
    for step in range(5):
        await context.report_progress(step + 1, 5)
        await context.info(f"step {step + 1}")
        await asyncio.sleep(0.02)
    return "done"


@server.tool
async def ask(context: Context) -> str:
    answer = await context.elicit("Your name?", response_type=str)
    return f"Hello {answer.data}"


@server.tool
async def think(context: Context) -> str:
    answer = await context.sample("What is the answer?")
    return f"It is {answer.text}"


@server.tool
def fails() -> str:
    from fastmcp.exceptions import ToolError

    raise ToolError("on purpose")


@server.tool
def large() -> str:
    return "x" * 1_000_000


@server.resource("data://{name}")
def resource(name: str) -> str:
    return f"of {name}"


@server.prompt
def review(code: str) -> str:
    return f"Review {code}"


app = server.http_app()

if __name__ == "__main__":
    server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
