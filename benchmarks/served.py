"""The application that BENCHMARK_APP names, for servers that import `served:app`.

`bridged` is the same behind a2wsgi, for servers of ASGI, with BENCHMARK_THREADS threads.
"""

from __future__ import annotations

import os
from typing import Any

import apps

NAME = os.environ["BENCHMARK_APP"]
app: Any = getattr(apps, NAME)
if NAME.startswith("make_"):
    app = app()


def __getattr__(name: str) -> Any:
    if name == "bridged":
        from a2wsgi import WSGIMiddleware

        return WSGIMiddleware(app, workers=int(os.environ["BENCHMARK_THREADS"]))
    raise AttributeError(name)


async def unused(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that gets no request."""
    raise NotImplementedError
