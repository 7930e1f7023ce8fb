"""gql: over HTTP, and over WebSockets by both protocols that are in use."""

import asyncio
import io
import json
import logging
import sys

from gql import Client, FileVar, gql
from gql.transport.exceptions import TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

logging.disable()
url = f"{sys.argv[1]}/graphql/"
socket = url.replace("http:", "ws:")
found: dict[str, object] = {}


async def over_http() -> None:
    """Queries, a mutation, an upload, an error."""
    async with Client(transport=HTTPXAsyncTransport(url, timeout=60)) as session:
        found["query"] = await session.execute(gql("{ books }"))
        mutation = gql("mutation ($title: String!) { add(title: $title) }")
        mutation.variable_values = {"title": "Évelina"}
        found["mutation"] = await session.execute(mutation)
        upload = gql("mutation ($file: Upload!) { size(file: $file) }")
        upload.variable_values = {"file": FileVar(io.BytesIO(bytes(3_000_000)), filename="large")}
        found["upload"] = await session.execute(upload, upload_files=True)
        try:
            await session.execute(gql("{ fails }"))
        except TransportQueryError as error:
            found["error"] = error.errors[0]["message"]


async def over_a_websocket(protocol: str) -> None:
    """Subscriptions and a query on one connection; one subscription is left early."""
    transport = WebsocketsTransport(socket, subprotocols=[protocol])
    async with Client(transport=transport) as session:

        async def count(target: int) -> list[int]:
            document = gql(f"subscription {{ count(target: {target}) }}")
            return [result["count"] async for result in session.subscribe(document)]

        counted = await asyncio.gather(*(count(target) for target in range(1, 21)))
        found[protocol] = counted == [list(range(target)) for target in range(1, 21)]
        forever = session.subscribe(gql("subscription { forever }"))
        async for result in forever:
            found[f"{protocol}: listeners"] = result["forever"]
            break
        await forever.aclose()
        if protocol == "graphql-transport-ws":  # the older one knows only subscriptions
            found["query on a WebSocket"] = len((await session.execute(gql("{ books }")))["books"])


async def cut() -> None:
    """20 connections with an endless subscription, closed without a word."""

    async def listen() -> None:
        client = Client(transport=WebsocketsTransport(socket))
        session = await client.connect_async()
        async for _ in session.subscribe(gql("subscription { forever }")):
            break
        client.transport.adapter.websocket.transport.abort()

    await asyncio.gather(*(listen() for _ in range(20)))


async def main() -> None:
    """All of it."""
    await over_http()
    await over_a_websocket("graphql-transport-ws")
    await over_a_websocket("graphql-ws")
    await cut()


asyncio.run(main())
print(json.dumps(found))
