"""Requests through proxies that are trusted, and through others, as applications see them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest

from threadwell import Request, Response, ThreadedServer, cli
from threadwell.worker.lifecycle import LifecycleEvent, ResponseCompleted

from ..helpers.asgi_tools import UPGRADE, Receive, Scope, Send, answer, no_lifespan
from ..helpers.process import script
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

FIVE = tuple(f"x-forwarded-{name}" for name in ("for", "proto", "host", "port", "prefix"))
TRUSTED = {"trusted_proxies": "127.0.0.0/8", "forwarded_header": FIVE}
# The proxies are somewhere else: who speaks here is a stranger.
STRANGER = {"trusted_proxies": "192.0.2.0/24", "forwarded_header": FIVE}
FIELDS = (
    "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
    "X-Forwarded-Host: www.example.com\r\nX-Forwarded-Port: 8443\r\nX-Forwarded-Prefix: /shop\r\n"
)
FORGED = (
    FIELDS + "Forwarded: for=6.6.6.6;proto=https;host=evil.example\r\nX-Real-IP: 6.6.6.6\r\n"
    "X_Forwarded_For: 6.6.6.6\r\nX_Forwarded_Proto: https\r\nX-Forwarded-Ssl: on\r\n"
)


def as_json(value: Any) -> Response:
    return Response(200, [("Content-Type", "application/json")], json.dumps(value).encode())


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """What PEP 3333 has of it."""
    names = (
        "REMOTE_ADDR REMOTE_PORT wsgi.url_scheme HTTPS HTTP_HOST SERVER_NAME SERVER_PORT"
        " SCRIPT_NAME PATH_INFO"
    )
    told = {name: environ.get(name) for name in names.split()}
    told["headers"] = sorted(name for name in environ if "FORWARDED" in name or "REAL_IP" in name)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]


def native(request: Request) -> Response:
    """What a `SyncApp` has of it."""
    return as_json(
        {
            "client": request.client,
            "peer": request.peer[0],
            "scheme": request.scheme,
            "server": request.server,
            "prefix": request.prefix,
            "host": request.header("host"),
            "headers": [name for name, _ in request.headers],
        }
    )


native.threadwell_interface = "sync"  # type: ignore[attr-defined]


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """What ASGI has of it."""
    await no_lifespan(scope)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-told", told_of(scope))]})
        return
    await answer(send, told_of(scope))


def told_of(scope: Scope) -> bytes:
    told = {name: scope[name] for name in ("client", "server", "scheme", "root_path", "path")}
    told["headers"] = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    return json.dumps(told).encode()


def ask(client: Client, fields: str = "", target: str = "/a") -> Any:
    reply = client.get(target, headers=fields)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


# ---- From a trusted proxy --------------------------------------------------------------------


def test_wsgi(serve: Serve, connect: Connect) -> None:
    server = serve(wsgi, **TRUSTED)
    client = connect(server)
    assert ask(client, FIELDS) == {
        "REMOTE_ADDR": "203.0.113.9",
        "REMOTE_PORT": "0",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "HTTP_HOST": "www.example.com:8443",
        "SERVER_NAME": "www.example.com",
        "SERVER_PORT": "8443",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/a",
        "headers": [f"HTTP_{name.upper().replace('-', '_')}" for name in sorted(FIVE)],
    }
    # the next one on the same connection is somebody else's
    direct = ask(client)
    assert (direct["REMOTE_ADDR"], direct["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert (direct["SCRIPT_NAME"], direct["HTTPS"]) == ("", None)
    assert (direct["SERVER_NAME"], direct["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert ask(client, FIELDS)["REMOTE_ADDR"] == "203.0.113.9"


def test_a_mounted_application_has_both_prefixes(serve: Serve, connect: Connect) -> None:
    from threadwell.adapters import WSGIApp

    client = connect(serve(WSGIApp(wsgi, script_name="/inner"), **TRUSTED))
    told = ask(client, FIELDS, "/inner/a")
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/shop/inner", "/a")


def test_native(serve: Serve, connect: Connect) -> None:
    told = ask(connect(serve(native, **TRUSTED)), FIELDS + "Accept: */*\r\n")
    assert told == {
        "client": ["203.0.113.9", 0],
        "peer": "127.0.0.1",
        "scheme": "https",
        "server": ["www.example.com", 8443],
        "prefix": "/shop",
        "host": "www.example.com:8443",
        "headers": ["host", *FIVE, "accept"],
    }


def test_asgi(serve: Serve, connect: Connect) -> None:
    client = connect(serve(asgi, **TRUSTED))
    told = ask(client, FIELDS)
    headers = told.pop("headers")
    assert told == {
        "client": ["203.0.113.9", 0],
        "server": ["www.example.com", 8443],
        "scheme": "https",
        "root_path": "/shop",
        "path": "/shop/a",
    }
    assert headers["host"] == "www.example.com:8443"
    direct = ask(client)
    assert (direct["client"][0], direct["scheme"], direct["path"]) == ("127.0.0.1", "http", "/a")


def test_a_websocket(serve: Serve, connect: Connect) -> None:
    client = connect(serve(asgi, **TRUSTED))
    head = client.get("/w", headers=UPGRADE + FIELDS.replace("https", "wss"))
    assert head.status == 101
    told = json.loads(head.header("x-told") or "")
    assert (told["scheme"], told["client"]) == ("wss", ["203.0.113.9", 0])


def test_an_unknown_client_is_none(serve: Serve, connect: Connect) -> None:
    fields = "X-Forwarded-For: unknown\r\n"
    assert ask(connect(serve(asgi, **TRUSTED)), fields)["client"] is None
    assert ask(connect(serve(wsgi, **TRUSTED)), fields)["REMOTE_ADDR"] == ""


def test_a_hybrid(serve: Serve, connect: Connect) -> None:
    def half(request: Request) -> Response | None:
        return None if request.path == "/async" else native(request)

    half.threadwell_interface = "sync"  # type: ignore[attr-defined]
    client = connect(serve(half, asgi_app=asgi, **TRUSTED))
    for _ in range(2):
        assert ask(client, FIELDS)["client"] == ["203.0.113.9", 0]
        told = ask(client, FIELDS.replace("9\r\n", "10\r\n", 1), "/async")
        assert (told["client"], told["path"]) == (["203.0.113.10", 0], "/shop/async")
        assert told["headers"]["host"] == "www.example.com:8443"
    assert ask(client)["client"][0] == "127.0.0.1"


def flask_app() -> flask.Flask:
    app = flask.Flask("behind")

    @app.get("/a")
    def told() -> Any:
        request = flask.request
        return {
            "url": request.url,
            "root": request.root_url,
            "client": request.remote_addr,
            "secure": request.is_secure,
            "link": flask.url_for("told", _external=True),
        }

    return app


def test_flask(serve: Serve, connect: Connect) -> None:
    assert ask(connect(serve(flask_app(), **TRUSTED)), FIELDS, "/a?b=c") == {
        "url": "https://www.example.com:8443/shop/a?b=c",
        "root": "https://www.example.com:8443/shop/",
        "client": "203.0.113.9",
        "secure": True,
        "link": "https://www.example.com:8443/shop/a",
    }


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_django(kind: str) -> None:
    pytest.importorskip("django")
    with script("django_behind_proxy.py", kind, json.dumps(TRUSTED)) as site:
        with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
            told = ask(Client(sock), FIELDS, "/told")
        site.finish()
    assert told.pop("forwarded")
    assert told == {
        "secure": True,
        "host": "www.example.com:8443",
        "port": "8443",
        "client": "203.0.113.9",
        "url": "https://www.example.com:8443/shop/told",
        "reverse": "/shop/told",
    }


def test_forwarded(serve: Serve, connect: Connect) -> None:
    options = {"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"], "forwarded_header": "forwarded"}
    fields = (
        'Forwarded: for=6.6.6.6, for="[2001:db8::9]:4711";proto=https;host=www.example.com,'
        " for=10.0.0.8;proto=http\r\nX-Forwarded-For: 6.6.6.6\r\n"
    )
    told = ask(connect(serve(wsgi, **options)), fields)
    assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == ("2001:db8::9", "4711")
    assert (told["wsgi.url_scheme"], told["HTTP_HOST"]) == ("https", "www.example.com")
    assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("www.example.com", "443")
    assert told["headers"] == ["HTTP_FORWARDED"]


def test_a_body_behind_them(serve: Serve, connect: Connect) -> None:
    def app(request: Request) -> Response:
        return Response(200, [], request.client[0].encode() + b" " + request.read())

    app.threadwell_interface = "sync"  # type: ignore[attr-defined]
    client = connect(serve(app, memory_body=16, **TRUSTED))
    for body in (b"short", b"a longer one, which goes to a file"):
        for prefix, status in (("", 200), ("bad, ", 200), ("x.", 400)):
            fields = f"X-Forwarded-For: {prefix}203.0.113.9\r\nContent-Length: {len(body)}\r\n"
            client.send(f"POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode() + body)
            reply = client.answer()
            assert reply.status == status
            if status == 200:
                assert reply.body == b"203.0.113.9 " + body
        client = connect(serve(app, memory_body=16, **TRUSTED))


@pytest.mark.parametrize("app", [wsgi, asgi])
def test_a_malformed_one_is_answered_and_nothing_behind_it(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    client = connect(serve(app, **TRUSTED))
    request = "GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {}\r\n\r\n"
    client.send((request.format("203.0.113.9, here") + request.format("203.0.113.9")).encode())
    reply = client.answer()
    assert reply.status == 400
    assert reply.body == b"The forwarding fields of this request are malformed\n"
    assert client.closed()
    assert len([text for text in caplog.messages if "HTTP_X_FORWARDED_FOR: '203.0" in text]) == 1


def test_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    for trusted, client in (("unix", "203.0.113.9"), ("127.0.0.1", "")):
        path = tmp_path / trusted
        server = serve(wsgi, bind=f"unix:{path}", **{**TRUSTED, "trusted_proxies": trusted})
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            told = ask(Client(sock), FIELDS)
        server.stop()
        assert told["REMOTE_ADDR"] == client
        assert told["wsgi.url_scheme"] == ("https" if client else "http")


def test_sendfile_and_tls_are_of_the_connection(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    # an https that a proxy speaks elsewhere must not keep this connection from anything
    data = os.urandom(300_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "x/y"), ("Content-Length", str(len(data)))])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    client = connect(serve(app, **TRUSTED))
    for _ in range(2):
        assert client.get(headers=FIELDS).body == data


# ---- From anybody else -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [STRANGER, {**STRANGER, "trusted_proxies": "unix"}])
@pytest.mark.parametrize("app", [wsgi, native, asgi])
def test_forged_fields_change_nothing(
    serve: Serve, connect: Connect, app: Any, options: dict[str, Any]
) -> None:
    client = connect(serve(app, **options))
    plain = ask(client)
    assert ask(client, FORGED) == plain
    assert ask(client, "X-Forwarded-For: not even an address\r\n") == plain
    assert "203.0.113.9" not in str(plain)


def test_forged_fields_change_nothing_in_flask(serve: Serve, connect: Connect) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = flask_app()
    app.wsgi_app = ProxyFix(app.wsgi_app, 1, 1, 1, 1, 1)  # type: ignore[method-assign]
    client = connect(serve(app, **STRANGER))
    assert ask(client, FORGED) == ask(client)
    assert ask(client, FORGED)["client"] == "127.0.0.1"


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_forged_fields_change_nothing_in_django(kind: str) -> None:
    pytest.importorskip("django")
    # though its settings believe the fields
    with script("django_behind_proxy.py", kind, json.dumps(STRANGER), "believing") as site:
        with socket.create_connection(("127.0.0.1", site.port), 20) as sock:
            client = Client(sock)
            assert ask(client, FORGED, "/told") == ask(client, "", "/told")
            assert not ask(client, FORGED, "/told")["secure"]
        site.finish()


@pytest.mark.parametrize("app", [wsgi, asgi])
def test_by_default_they_are_the_applications(serve: Serve, connect: Connect, app: Any) -> None:
    # nothing is believed, and nothing is taken away: the framework may have been told of a proxy
    client = connect(serve(app))
    told, plain = ask(client, FIELDS), ask(client)
    assert "X_FORWARDED_FOR" in str(told["headers"]).upper().replace("-", "_")
    del told["headers"], plain["headers"]
    assert told == plain


# ---- The log ---------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [wsgi, asgi])
def test_the_access_log(serve: Serve, connect: Connect, tmp_path: Path, app: Any) -> None:
    log = tmp_path / "log"
    server = serve(app, access_log=str(log), log_format="%h %a %{c}a %s", **TRUSTED)
    client = connect(server)
    ask(client, FIELDS)
    ask(client)
    client.get(headers="X-Forwarded-For: nobody\r\n")
    client.rest()
    client = connect(server)
    ask(client, FIELDS)
    client.send(b"bad\r\n\r\n")  # of whom this comes nobody says
    client.rest()
    server.stop()
    assert log.read_text().splitlines() == [
        "203.0.113.9 203.0.113.9 127.0.0.1 200",
        "127.0.0.1 127.0.0.1 127.0.0.1 200",
        "127.0.0.1 127.0.0.1 127.0.0.1 400",
        "203.0.113.9 203.0.113.9 127.0.0.1 200",
        "127.0.0.1 127.0.0.1 127.0.0.1 400",
    ]


@pytest.mark.parametrize("app", [native, asgi])
def test_what_a_collector_is_told(serve: Serve, connect: Connect, app: Any) -> None:
    events: list[LifecycleEvent] = []

    class Collector:
        def record(self, event: LifecycleEvent) -> None:
            events.append(event)

    server = serve(app, lifecycle_collector=Collector(), **TRUSTED)
    client = connect(server)
    ask(client, FIELDS)
    client.close()
    server.stop()
    opened, *_, closed = events
    completed = next(event for event in events if isinstance(event, ResponseCompleted))
    assert completed.client == ("203.0.113.9", 0)
    assert completed.peer[0] == "127.0.0.1"
    assert opened.client == closed.client == completed.peer  # type: ignore[union-attr]


# ---- Commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--proxy-protocol"], "--proxy-protocol: no proxy is trusted"),
        (["--trusted-proxies", "*"], "--trusted-proxies: with * as a proxy, set"),
        (["--trusted-proxies", "nginx"], "--trusted-proxies: 'nginx' is neither"),
        (["--trusted-proxies", "10.0.0.1/8"], "--trusted-proxies: 10.0.0.1/8 is not a network"),
        (["--forwarded-header", "via"], "--forwarded-header: 'via' is none of"),
    ],
)
@pytest.mark.parametrize("command", [[], ["check"]])
def test_a_mistake_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], command: list[str], options: list[str], said: str
) -> None:
    assert cli.main([*command, "tests.proxies.test_proxies:wsgi", *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith(f"threadwell: {said}")


def test_the_environment_has_several(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("THREADWELL_TRUSTED_PROXIES", "10.0.0.7 fd00::/8")
    assert cli.main(["config", "show", "--trusted-proxies", "unix"]) == 0
    assert 'trusted_proxies = ["unix"]' in capsys.readouterr().out
    assert cli.main(["config", "show"]) == 0
    assert 'trusted_proxies = ["10.0.0.7", "fd00::/8"]' in capsys.readouterr().out
