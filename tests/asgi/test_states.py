"""The state machines of the asyncio side: the tables, and the owners that follow them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.asgi.cycle import Cycle
from threadwell.worker.asgi.http1_reader import HTTP1Reader
from threadwell.worker.asgi.opening import OpeningConnection
from threadwell.worker.asgi.states import (
    OPENING_TRANSITIONS,
    READ_TRANSITIONS,
    RESPONSE_TRANSITIONS,
    SESSION_TRANSITIONS,
    OpeningState,
    ReadState,
    ResponseState,
    SessionState,
    checked,
)
from threadwell.worker.asgi.websocket import Session
from threadwell.worker.connection import IllegalTransition

from ..helpers.asgi_tools import Receive, Scope, Send, no_lifespan, read_body
from ..helpers.waiting import until
from ..helpers.wire_client import Client

MACHINES: list[tuple[type[Enum], Any, Enum, set[Enum]]] = [
    # states, table, the first state but for OpeningState, which has two; the last ones
    (OpeningState, OPENING_TRANSITIONS, OpeningState.PROXY_HEADER, {OpeningState.LINGER}),
    (ReadState, READ_TRANSITIONS, ReadState.READY, {ReadState.LINGER}),
    (ResponseState, RESPONSE_TRANSITIONS, ResponseState.NEW, {ResponseState.DONE}),
    (SessionState, SESSION_TRANSITIONS, SessionState.CONNECTING, {SessionState.CLOSED}),
]


@pytest.mark.parametrize(("states", "table", "first", "last"), MACHINES)
def test_each_state_can_be_reached_and_left(
    states: type[Enum], table: Any, first: Enum, last: set[Enum]
) -> None:
    assert set(table) == set(states)
    reached = {first}
    while further := {after for before in reached for after in table[before]} - reached:
        reached |= further
    assert reached == set(states)
    assert {state for state in states if not table[state]} == last


@pytest.mark.parametrize(("states", "table", "first", "last"), MACHINES)
def test_only_what_the_table_has_may_follow(
    states: type[Enum], table: Any, first: Enum, last: set[Enum]
) -> None:
    for before in states:
        for after in states:
            if after in table[before]:
                assert checked(table, before, after) is after
            else:
                with pytest.raises(IllegalTransition, match=f"{before.name} -> {after.name}"):
                    checked(table, before, after)


def reader(state: ReadState) -> HTTP1Reader:
    made = HTTP1Reader(SimpleNamespace(buffer=b""), None, None)  # type: ignore[arg-type]
    made.state = state
    return made


def response(state: ResponseState) -> Cycle:
    made = Cycle(None, None)  # type: ignore[arg-type]
    made._state = state
    return made


def session(state: SessionState) -> Session:
    made = Session.__new__(Session)
    made._state = state
    return made


def opening(state: OpeningState) -> OpeningConnection:
    made = OpeningConnection.__new__(OpeningConnection)
    made.state = state
    return made


@pytest.mark.parametrize(
    ("make", "table", "attribute", "become"),
    [
        (opening, OPENING_TRANSITIONS, "state", "become"),
        (reader, READ_TRANSITIONS, "state", "become"),
        (response, RESPONSE_TRANSITIONS, "_state", "_become"),
        (session, SESSION_TRANSITIONS, "_state", "_become"),
    ],
)
def test_the_owner_of_a_state_follows_its_table(
    make: Any, table: Any, attribute: str, become: str
) -> None:
    for before in table:
        for after in table:
            owner = make(before)
            if after in table[before]:
                getattr(owner, become)(after)
                assert getattr(owner, attribute) is after
            else:
                with pytest.raises(IllegalTransition):
                    getattr(owner, become)(after)
                assert getattr(owner, attribute) is before


class CheckedState:
    """A descriptor in place of the slot of a state, which checks each step by the table."""

    def __init__(self, owner: type, name: str, table: Any, steps: set[tuple[str, str]]) -> None:
        self._slot = owner.__dict__[name]
        self._table, self._steps = table, steps

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self._slot.__get__(instance, owner)

    def __set__(self, instance: Any, after: Any) -> None:
        try:
            before = self._slot.__get__(instance)
        except AttributeError:  # the first state
            before = None
        if before is not None and before is not after:
            checked(self._table, before, after)
            self._steps.add((before.name, after.name))
        self._slot.__set__(instance, after)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    body = await read_body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


def test_the_steps_that_are_assigned_directly_are_in_the_tables(
    serve: Callable[..., ThreadedServer],
    connect: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests alone, behind one another, with a body that comes in one piece or in two."""
    steps: set[tuple[str, str]] = set()
    for owner, name, table in (
        (HTTP1Reader, "state", READ_TRANSITIONS),
        (Cycle, "_state", RESPONSE_TRANSITIONS),
    ):
        monkeypatch.setattr(owner, name, CheckedState(owner, name, table, steps))
    client = connect(serve(echo))
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    client.send(get)
    assert client.answer().body == b""
    client.send(get + post % b"/" + b"body")
    assert client.answer().body == b""
    assert client.answer().body == b"body"
    client.send(post % b"/stream" + b"bo")
    client.send(b"dy")
    assert client.answer().body == b"first body"
    client.send(b"no request\r\n\r\n")
    assert client.answer().status == 400
    # the client has the answer before the server has taken its last step
    until(lambda: ("READY", "LINGER") in steps)
    assert steps == {
        ("READY", "BUSY"),
        ("BUSY", "READY"),
        ("BUSY", "BODY"),
        ("BODY", "BUSY"),
        ("READY", "LINGER"),
        ("NEW", "STARTED"),
        ("STARTED", "DONE"),
        ("STARTED", "STREAMING"),
        ("STREAMING", "DONE"),
    }
