"""Requests to Django: signals, what is closed, and what is left for the next one."""

from __future__ import annotations

import json

import pytest

from .site import REQUESTS, Open, Site, head, site_with, whole

pytest.importorskip("django")

CONTENT = bytes(range(256)) * 1024
COUNTED = {"CACHES": {"default": {"BACKEND": "__main__.CountedCache"}}}


# ---- Signals, and what is closed -----------------------------------------------------------

# Django says nothing of the end of a request that ends with its handler; we do.
_ENDING = [
    (name, server)
    for name in REQUESTS
    for server in ("direct", "wsgi", "middleware")
    if name != "many at once" and (name != "exit" or server == "direct")
]


@pytest.mark.parametrize(("name", "server"), _ENDING)
def test_every_request_starts_and_finishes_once(
    name: str, server: str, site: Site, dial: Open
) -> None:
    answer = whole(dial(site, server), REQUESTS[name])
    if name == "HTTP/1.0 without a host" or not answer.startswith(b"HTTP/1.1 4"):
        events = site.events(ends=1)
    else:
        events = site.events()
        if not events:
            return  # refused before Django
        events += site.events(ends=1 - sum(event[0] == "finished" for event in events))
    started = [event for event in events if event[0] == "started"]
    finished = [event for event in events if event[0] == "finished"]
    assert [event[1] for event in started] == [event[1] for event in finished] == ["WSGIHandler"]
    # on one thread, the end last, after all that the response closes
    assert len({event[-1] for event in events if event[0] != "warned"}) == 1
    assert events[-1] == finished[0]
    assert events[0] == started[0]
    closed = [event[0] for event in events if event[0].endswith("closed")]
    assert len(closed) == len(set(closed))
    if b"Set-Cookie" not in answer and "error" not in name and "un" not in name:
        assert "resource closed" in closed or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 500"))


@pytest.mark.parametrize("server", ["direct", "wsgi"])
def test_a_client_that_leaves_in_mid_stream(server: str, site: Site, dial: Open) -> None:
    client = dial(site, server)
    client.send(head("GET", "/endless"))
    client.sock.recv(1000)
    client.close()
    events = site.events(ends=1)
    assert [event[0] for event in events] == [
        "started",
        "resource closed",
        "had connection",
        "finished",
    ] or [event[0] for event in events] == [
        "started",
        "had connection",
        "resource closed",
        "finished",
    ]
    assert ["had connection", True] in events


def test_a_client_that_leaves_before_the_answer(site: Site, dial: Open) -> None:
    client = dial(site)
    client.send(head("GET", "/stream?wait&blocks=1000"))
    client.sock.recv(1)
    client.close()
    site.ask("release")
    events = site.events(ends=1)
    assert [event[0] for event in events] == [
        "started",
        "iterated",
        "content closed",
        "resource closed",
        "finished",
    ]


def test_queries_are_counted_anew(dial: Open) -> None:
    with site_with(threads=1) as site:
        client = dial(site)
        client.get("/queries")  # connects
        assert [json.loads(client.get("/queries").body)["count"] for _ in range(3)] == [1, 1, 1]
        site.finish()


# ---- Long and asynchronous -----------------------------------------------------------------


def test_streams_hold_nobody_up(site: Site, dial: Open) -> None:
    """Twice as many as there are threads, and another request in between."""
    waiting = [dial(site) for _ in range(6)]
    for client in waiting:
        client.send(head("GET", "/stream?wait"))
        client.sock.settimeout(20)
    assert dial(site).get("/hello").body == b"xxxxx"
    site.ask("release")
    for client in waiting:
        assert client.answer().body == b"bytes;block 1;bytes;"
    site.events(ends=7)


def test_async_stream_is_consumed_with_a_warning(site: Site, dial: Open) -> None:
    assert dial(site).get("/async-stream").body == b"0;1;2;"
    warned = [event[1] for event in site.events(ends=1) if event[0] == "warned"]
    assert len(warned) == 1
    assert "must consume asynchronous iterators" in warned[0]


def test_a_file_that_grows_keeps_its_length(site: Site, dial: Open) -> None:
    client = dial(site)
    assert client.get("/file?kind=growing").body == CONTENT
    assert client.get("/hello").body == b"xxxxx"  # nothing is between the two


# ---- From one request to the next ----------------------------------------------------------


def test_nothing_is_left_for_the_next_request(dial: Open) -> None:
    with site_with(threads=1) as site:
        for name in ("direct", "wsgi", "middleware", "direct below"):
            client = dial(site, name)
            first = json.loads(client.get("/below/state?set").body) if "b" in name[-5:] else None
            first = first or json.loads(client.get("/state?set").body)
            again = json.loads(client.get("/state").body)
            assert again["thread"] == first["thread"]
            assert again["seen"] == ["en-us", "America/Chicago", "/"]
        site.finish()


@pytest.mark.parametrize("server", ["direct", "middleware"])
def test_a_cache_is_made_once_a_thread(server: str, dial: Open) -> None:
    with site_with(threads=1, **COUNTED) as site:
        site.ask("events")
        client = dial(site, server)
        answers = [json.loads(client.get("/cached").body) for _ in range(5)]
        assert [answer["count"] for answer in answers] == [1, 2, 3, 4, 5]
        assert json.loads(client.get("/async-cached").body)["count"] == 6
        client.close()
        events = site.events(ends=6)
        assert [event[0] for event in events].count("cache made") == 1
        site.ask("stop")
        assert site.ask("events") == [["cache closed", answers[0]["thread"]]]
        site.finish()


def test_caches_may_be_overridden(dial: Open) -> None:
    """`override_settings` in a live test reaches the threads that serve."""
    with site_with(threads=1, **COUNTED) as site:
        client = dial(site)
        assert json.loads(client.get("/cached").body)["count"] == 1
        client.get("/recache")
        assert json.loads(client.get("/cached").body)["count"] == 1
        assert json.loads(client.get("/cached").body)["count"] == 2
        site.finish()
