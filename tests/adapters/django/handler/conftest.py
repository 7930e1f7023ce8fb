"""Fixtures of the tests of `DjangoApp`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ....helpers.wire_client import Client
from .site import Open, Site, hang_up, site_with


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    with site_with() as running:
        yield running


@pytest.fixture
def site(shared_site: Site) -> Site:
    shared_site.ask("hold")
    shared_site.ask("events")
    return shared_site


@pytest.fixture
def dial() -> Iterator[Open]:
    """`dial(site, name)`: a connection to one of its servers; its requests end with the test."""
    with contextlib.ExitStack() as stack:

        def connect(site: Site, name: str = "direct") -> Client:
            sock = socket.create_connection(("127.0.0.1", site.ports[name]), 20)
            client = stack.enter_context(contextlib.closing(Client(sock)))
            stack.callback(hang_up, client)
            return client

        yield connect
