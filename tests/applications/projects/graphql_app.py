"""strawberry: queries, mutations, uploads and subscriptions."""

import asyncio
from collections.abc import AsyncIterator

import strawberry
from starlette.applications import Starlette
from strawberry.asgi import GraphQL
from strawberry.file_uploads import Upload

books = ["Middlemarch"]
listeners = 0


@strawberry.type
class Query:
    @strawberry.field
    def books(self) -> list[str]:
        return books

    @strawberry.field
    def listeners(self) -> int:
        return listeners

    @strawberry.field
    def fails(self) -> str | None:
        raise ValueError("on purpose")


@strawberry.type
class Mutation:
    @strawberry.mutation
    def add(self, title: str) -> int:
        books.append(title)
        return len(books)

    @strawberry.mutation
    async def size(self, file: Upload) -> int:
        return len(await file.read())


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, target: int) -> AsyncIterator[int]:
        for at in range(target):
            yield at
            await asyncio.sleep(0.005)

    @strawberry.subscription
    async def forever(self) -> AsyncIterator[int]:
        global listeners
        listeners += 1
        try:
            while True:
                yield listeners
                await asyncio.sleep(0.01)
        finally:
            listeners -= 1


schema = strawberry.Schema(Query, Mutation, Subscription)
app = Starlette()
app.mount("/graphql", GraphQL(schema, multipart_uploads_enabled=True))
