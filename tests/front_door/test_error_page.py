"""The page that a reloader serves while the application cannot be loaded."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.error_page import MARK, ErrorPage, SelfReloading, is_loopback, serve_error
from threadwell.worker import (
    ConfigError,
    Origin,
    Request,
    RequestReceived,
    ServerConfig,
    open_sockets,
)

from ..helpers.command import command, get
from ..helpers.waiting import until

SECRET = "File 'secret.py'"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
Serve = Callable[..., ThreadedServer]


def ask(
    server: ThreadedServer, method: str = "GET", query: str = "a=b", **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    client.request(method, f"/some/page?{query}", headers=names)
    response = client.getresponse()
    text = response.read().decode()
    client.close()
    return response, text


def test_a_browser_gets_a_page_that_reloads_itself(serve: Serve) -> None:
    server = serve(
        ErrorPage(f"{SECRET} \x1b[31m<script>alert(1)</script>\x1b[0m"), interface="sync"
    )
    response, page = ask(server, **HTML)
    assert response.status == 500
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "secret.py" in page
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    mark = response.headers[MARK]
    assert f"script-src 'nonce-{mark}'" in response.headers["Content-Security-Policy"]
    assert f'<script nonce="{mark}">' in page
    # what the script asks: the same mark, as long as this page answers
    head, body = ask(server, "HEAD", Accept="*/*")
    assert (head.headers[MARK], body) == (mark, "")
    assert ask(serve(ErrorPage("other"), interface="sync"))[0].headers[MARK] != mark


def test_a_form_is_not_sent_again(serve: Serve) -> None:
    server = serve(ErrorPage(SECRET), interface="sync")
    _, page = ask(server, "POST", **HTML)
    assert "secret.py" in page
    assert "<script" not in page
    assert "Send the request again" in page


def test_other_clients_get_text(serve: Serve) -> None:
    response, text = ask(serve(ErrorPage(SECRET), interface="sync"))
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert text == f"The application cannot be loaded\n\n{SECRET}\n"


@pytest.mark.parametrize(
    ("headers", "sees"),
    [
        ({}, True),
        ({"Host": "localhost"}, True),
        ({"Host": "LocalHost.:8000"}, True),
        ({"Host": "site.localhost:8000"}, True),
        ({"Host": "[::1]:8000"}, True),
        ({"Host": "127.3.2.1"}, True),
        ({"Host": "rebound.example"}, False),  # a name whose address was changed to this machine's
        ({"Host": "localhost.example:80"}, False),
        ({"Host": "notlocalhost"}, False),
        ({"Host": "10.0.0.1"}, False),
        ({"X_Forwarded_For": "127.0.0.1"}, False),
        ({"X_Forwarded_Host": "localhost"}, False),
        ({"X_Real_IP": "127.0.0.1"}, False),
        ({"Forwarded": "for=127.0.0.1"}, False),
    ],
)
@pytest.mark.parametrize("accept", [{}, HTML], ids=["text", "html"])
def test_who_sees_the_source(
    serve: Serve, headers: dict[str, str], sees: bool, accept: dict[str, str]
) -> None:
    response, text = ask(serve(ErrorPage(SECRET), interface="sync"), **headers, **accept)
    assert response.status == 500
    assert ("secret.py" in text) is sees
    assert ("in the terminal of the server" in text) is not sees
    assert MARK in response.headers  # the page reloads for everybody


@pytest.mark.parametrize(
    ("peer", "client", "sees"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("", "", True),  # a unix socket
        ("192.0.2.1", "192.0.2.1", False),
        ("127.0.0.1", "192.0.2.1", False),  # a trusted proxy says so
        ("192.0.2.1", "127.0.0.1", False),
    ],
)
def test_other_machines_do_not_see_the_source(peer: str, client: str, sees: bool) -> None:
    head = RequestReceived("GET", "/", "/", "", "1.1", b"", {"HTTP_HOST": "localhost"})
    origin = Origin((client, 1), "1", ("127.0.0.1", 80), "http")
    channel: Any = SimpleNamespace(origin=origin, peer=(peer, 1))
    answer = ErrorPage(SECRET)(Request(head, b"", channel))
    assert isinstance(answer.body, bytes)
    assert (b"secret.py" in answer.body) is sees


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("name", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_the_sockets_stay_open() -> None:
    config = ServerConfig.from_options(bind="127.0.0.1:0")
    sockets = open_sockets(config.bind)
    for text in ("one", "two"):
        server = serve_error(text, config, sockets)
        assert text in get(server.urls[0])[1]
        server.stop(0)
    with socket.create_connection(sockets[0].getsockname(), 20):
        sockets[0].setblocking(True)
        sockets[0].accept()[0].close()
    sockets[0].close()


def test_what_keeps_it_from_being_served(tmp_path: Path) -> None:
    config = ServerConfig.from_options(bind="127.0.0.1:0", certfile=str(tmp_path / "absent.pem"))
    sockets = open_sockets(config.bind)
    with pytest.raises(ConfigError, match=r"the error page cannot be served: .*absent\.pem"):
        serve_error("text", config, sockets)
    sockets[0].close()


def test_self_reloading_pages(serve: Serve) -> None:
    closed = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        status, kind, length = environ["QUERY_STRING"].split(",")
        headers = [("Content-Type", kind)] + [("Content-Length", length)] * bool(length)
        start_response(f"{status} Reason", headers)
        return Body([b"page"])

    server = serve(SelfReloading(app), interface="wsgi")
    for query in ("500,text/html;charset=utf-8,4", "500,text/html,"):
        response, page = ask(server, query=query)
        assert page.startswith(f'page<script nonce="{response.headers[MARK]}">')
        assert page.endswith("</script>\n")
    for query, method in (
        ("500,text/html,4", "POST"),
        ("500,text/plain,4", "GET"),
        ("200,text/html,4", "GET"),  # the debugger shows what a console answers in its page
    ):
        response, page = ask(server, method, query=query)
        assert page == "page"
        assert MARK in response.headers
    until(lambda: closed == [True] * 5)


def test_the_reloader_serves_it(tmp_path: Path) -> None:
    """What is broken in a file that was never imported, and a process that dies while it serves."""
    app = (
        "from threadwell.worker import Response\n"
        'def app(request):\n    return Response(200, (), b"well")\n'
    )
    dying = app.replace("    return", "    import os; os._exit(7)\n    return")
    (tmp_path / "app.py").write_text("import part\n" + app)
    (tmp_path / "part.py").write_text("def broken(:")
    words = ["-m", "threadwell", "--reload", "--bind", "127.0.0.1:0"]
    with command(words, tmp_path) as running:
        running.until("the server ended with code 2")
        (tmp_path / "app.py").write_text("import part\n" + app + "# ")
        (tmp_path / "part.py").write_text("")
        url = running.url()
        assert get(url) == (200, "well")
        (tmp_path / "part.py").write_text("import absent_module\n")
        running.until("the server ended with code 2")
        status, text = get(url)
        assert status == 500
        assert "No module named 'absent_module'" in text
        assert "part.py" in text
        (tmp_path / "app.py").write_text(dying)
        running.until("again")
        with pytest.raises(OSError, match=r".+"):
            get(url)
        running.until("the server ended with code 7")
        assert "the server ended with code 7" in get(url)[1]
        (tmp_path / "app.py").write_text(app)
        running.until("serves app:app again")
        assert get(url) == (200, "well")
        running.end()
