"""An application that is called as WSGI, and is none: the log says how to name its kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def logged(app: Any) -> Any:
    """A decorator, as there are many: its function takes whatever it gets."""

    @functools.wraps(app)
    def call(*args: Any) -> Any:
        return app(*args)

    return call


def native(request: Request) -> Response:
    return Response(200, [], b"native")


def native_with_more(request: Request, more: Any = None) -> Response:
    return Response(200, [], b"native")


async def asgi(scope: Any, receive: Any = None, send: Any = None) -> None: ...


def four(one: Any, two: Any, three: Any, four: Any) -> None: ...


def broken(environ: Any, start_response: Any) -> Any:
    return len(7)  # type: ignore[arg-type]


def broken_inside(*args: Any) -> Any:
    return broken(*args)


def answer(serve: Serve, connect: Connect, app: Any, **options: Any) -> int:
    return connect(serve(app, **options)).get().status


@pytest.mark.parametrize("app", [logged(native), logged(native_with_more), logged(asgi), four])
def test_the_first_call_names_the_option(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    assert answer(serve, connect, app) == 500
    assert "name it: --interface asgi or --interface sync" in caplog.text


@pytest.mark.parametrize("app", [broken, logged(broken), broken_inside])
def test_other_errors_do_not(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    assert answer(serve, connect, app) == 500
    assert "TypeError" in caplog.text
    assert "--interface" not in caplog.text


def test_a_kind_that_is_named(serve: Serve, connect: Connect) -> None:
    assert answer(serve, connect, logged(native), interface="sync") == 200
