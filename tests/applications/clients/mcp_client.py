"""FastMCP's own client, over streamable HTTP."""

import asyncio
import json
import sys

from fastmcp import Client
from fastmcp.exceptions import ToolError


async def main() -> dict[str, object]:
    """Every kind of call."""
    progress: list[float] = []
    logs: list[str] = []

    async def on_progress(at: float, total: float | None, message: str | None) -> None:
        progress.append(at)

    async def on_log(message: object) -> None:
        logs.append(message.data["msg"])

    async def on_question(message: str, kind: type, *_: object) -> object:
        return kind(value="Ada")

    async def on_sampling(*_: object) -> str:
        return "42"

    client = Client(
        f"{sys.argv[1]}/mcp",
        progress_handler=on_progress,
        log_handler=on_log,
        elicitation_handler=on_question,
        sampling_handler=on_sampling,
    )
    found: dict[str, object] = {}
    async with client:
        found["tools"] = sorted(tool.name for tool in await client.list_tools())
        found["add"] = (await client.call_tool("add", {"a": 2, "b": 3})).data
        found["work"] = (await client.call_tool("work")).data
        found["progress"], found["logs"] = progress, logs
        found["elicitation"] = (await client.call_tool("ask")).data
        found["sampling"] = (await client.call_tool("think")).data
        found["large"] = len((await client.call_tool("large")).data)
        found["resource"] = (await client.read_resource("data://one"))[0].text
        found["prompt"] = (
            (await client.get_prompt("review", {"code": "x"})).messages[0].content.text
        )
        sums = await asyncio.gather(
            *(client.call_tool("add", {"a": number, "b": number}) for number in range(20))
        )
        found["at once"] = [done.data for done in sums] == [2 * number for number in range(20)]
        try:
            await client.call_tool("fails")
        except ToolError as error:
            found["error"] = str(error)
    many = [Client(f"{sys.argv[1]}/mcp") for _ in range(10)]
    async with asyncio.TaskGroup() as group:
        for other in many:
            group.create_task(session(other))
    found["sessions"] = len(many)
    return found


async def session(client: Client) -> None:
    """Another session."""
    async with client:
        assert (await client.call_tool("add", {"a": 1, "b": 1})).data == 2


print(json.dumps(asyncio.run(main())))
