"""Certificates in files, and what several tests of TLS do with them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from threadwell import (
    ConfigError,
)
from threadwell.worker.config.groups import Tls
from threadwell.worker.tls.context import make_context

from ..helpers.certificates import Authority
from ..helpers.wire_client import Client


class Files(NamedTuple):
    authority: Authority
    cert: Path
    key: Path
    encrypted: Path
    both: Path
    other_key: Path
    client: tuple[Path, Path]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path.startswith("/environ/"):
        return [environ.get(path.rpartition("/")[2], "-").encode("latin-1")]
    return [environ["wsgi.url_scheme"].encode()]


def session_of(client: Client) -> ssl.SSLSocket:
    assert isinstance(client.sock, ssl.SSLSocket)
    return client.sock


def mistake(**options: Any) -> str:
    """The message of the error; none of them may ask on a terminal."""
    with pytest.raises(ConfigError) as caught:
        make_context(Tls(**{name: str(value) for name, value in options.items()}))
    message = str(caught.value)
    assert "\n" not in message
    return message
