"""The application of these examples: says which process has answered."""

import os
from collections.abc import Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Hello from process {os.getpid()}, {environ['REMOTE_ADDR']}\n".encode()]
