"""TLS by options: certificates, what is wrong with them, and their reloading."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from threadwell import (
    ConfigError,
    Request,
    Response,
    ServerConfig,
    SyncWorker,
    ThreadedServer,
    make_server,
)
from threadwell.worker.config.groups import Tls
from threadwell.worker.threads.pool import ThreadPool
from threadwell.worker.tls.client_certificate import distinguished
from threadwell.worker.tls.context import make_context

from .asgi_tools import answer, no_lifespan
from .certificates import PASSWORD, Authority, openssl
from .waiting import until
from .wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Files(NamedTuple):
    authority: Authority
    cert: Path
    key: Path
    encrypted: Path
    both: Path
    other_key: Path
    client: tuple[Path, Path]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    cert, key = authority.issue("server")
    both = cert.with_name("both.pem")
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return Files(
        authority,
        cert,
        key,
        authority.encrypted(key),
        both,
        authority.issue("other")[1],
        authority.issue(
            "client", "/C=DE/O=Müller, Söhne\\+Co/CN=Ann", "DNS:ann.example,email:ann@example.com"
        ),
    )


@pytest.fixture
def connect_tls(files: Files) -> Iterator[Connect]:
    """`connect_tls(server, context=None)`: a client behind a finished handshake."""
    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer, context: ssl.SSLContext | None = None) -> Client:
            context = context or files.authority.trusting()
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            sock = context.wrap_socket(raw, server_hostname="127.0.0.1")
            return stack.enter_context(contextlib.closing(Client(sock)))

        yield open_client


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path.startswith("/environ/"):
        return [environ.get(path.rpartition("/")[2], "-").encode("latin-1")]
    return [environ["wsgi.url_scheme"].encode()]


def session_of(client: Client) -> ssl.SSLSocket:
    assert isinstance(client.sock, ssl.SSLSocket)
    return client.sock


# ---- What is given --------------------------------------------------------------------------


def options_for(files: Files, way: str, tmp_path: Path) -> dict[str, Any]:
    cert, both = str(files.cert), str(files.both)
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    return {
        "two files": {"certfile": cert, "keyfile": str(files.key)},
        "one file": {"certfile": both},
        "password": {
            "certfile": cert,
            "keyfile": str(files.encrypted),
            "keyfile_password": PASSWORD,
        },
        "password file": {
            "certfile": cert,
            "keyfile": str(files.encrypted),
            "keyfile_password_file": str(secret),
        },
    }[way]


@pytest.mark.parametrize("way", ["two files", "one file", "password", "password file"])
def test_https(serve: Serve, connect_tls: Connect, files: Files, way: str, tmp_path: Path) -> None:
    server = serve(app, **options_for(files, way, tmp_path))
    assert server.urls == [f"https://127.0.0.1:{server.port}"]
    client = connect_tls(server)
    assert client.get().body == b"https"
    assert client.get("/environ/HTTPS").body == b"on"
    assert client.get("/environ/SSL_CLIENT_VERIFY").body == b"-"


def test_make_server_takes_them_too(connect_tls: Connect, files: Files) -> None:
    with make_server("127.0.0.1", 0, app, certfile=str(files.both)) as server:
        assert connect_tls(server).get().body == b"https"


def test_a_bind_may_be_without_tls(serve: Serve, connect_tls: Connect, files: Files) -> None:
    binds = ["127.0.0.1:0", "http://127.0.0.1:0", "https://127.0.0.1:0"]
    server = serve(app, bind=binds, certfile=str(files.both))
    assert [url.partition(":")[0] for url in server.urls] == ["https", "http", "https"]
    assert connect_tls(server).get().body == b"https"
    with socket.create_connection(server.addresses[1], 10) as sock:
        assert Client(sock).get().body == b"http"


def test_a_bind_with_https_needs_a_certificate() -> None:
    with pytest.raises(ConfigError, match=r"^bind: https://localhost:0 needs a certificate"):
        ThreadedServer(app, bind="https://localhost:0").bind()


def test_ssl_context_and_options(files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ConfigError, match=r"^certfile: ssl_context says it already"):
        ThreadedServer(app, ssl_context=context, certfile=str(files.both))


def test_what_is_never_done(files: Files) -> None:
    context = make_context(Tls(certfile=str(files.both)))
    assert context is not None
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    assert make_context(Tls()) is None


def test_alpn_and_no_name(serve: Serve, files: Files) -> None:
    server = serve(app, certfile=str(files.both))
    context = files.authority.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as raw,
        context.wrap_socket(raw) as sock,
    ):
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert Client(sock).get().body == b"https"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("least", "offered"), [("1.2", "TLSv1_1"), ("1.3", "TLSv1_2")])
def test_an_old_version_is_refused(
    serve: Serve, connect_tls: Connect, files: Files, least: str, offered: str
) -> None:
    server = serve(app, certfile=str(files.both), tls_min_version=least)
    context = files.authority.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion[offered]
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        connect_tls(server, context)
    assert session_of(connect_tls(server)).version() == "TLSv1.3"


def test_a_worker_without_a_server_has_it_too(connect_tls: Connect, files: Files) -> None:
    def hello(request: Request) -> Response:
        return Response(200, [], request.scheme.encode())

    sock = socket.create_server(("127.0.0.1", 0))
    config = ServerConfig.from_options(certfile=str(files.both), threads=1)
    worker = SyncWorker(config, hello, sock)
    server: Any = SimpleNamespace(port=sock.getsockname()[1])
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        assert connect_tls(server).get().body == b"https"
    finally:
        worker.stop()
        thread.join()


# ---- What is wrong with it ------------------------------------------------------------------


def mistake(**options: Any) -> str:
    """The message of the error; none of them may ask on a terminal."""
    with pytest.raises(ConfigError) as caught:
        make_context(Tls(**{name: str(value) for name, value in options.items()}))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_contradictions(files: Files) -> None:
    cert = files.both
    assert mistake(cert="adhoc", certfile=cert).startswith("cert: adhoc makes a certificate")
    assert mistake(keyfile=files.key).startswith("keyfile: there is no certificate; give certfile")
    assert mistake(min_version="1.3").startswith("tls_min_version: there is no certificate")
    assert mistake(cert="adhoc", keyfile_password="x").startswith("keyfile_password: the key that")
    twice = {"keyfile_password": "x", "keyfile_password_file": "y"}
    assert mistake(certfile=cert, **twice).startswith("keyfile_password: the password is given t")
    assert mistake(certfile=cert, client_certs="required").endswith("give ca_certs too")
    assert mistake(certfile=cert, ca_certs=cert).startswith("ca_certs: no client is asked")


def test_files_that_are_not_there(files: Files, tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    assert mistake(certfile=none) == f"certfile: there is no file {none}; check the path"
    assert mistake(certfile=files.cert, keyfile=none).startswith(
        f"keyfile: there is no file {none}"
    )
    assert mistake(certfile=tmp_path).startswith(f"certfile: {tmp_path} cannot be read: ")
    password = {"keyfile": files.encrypted, "keyfile_password_file": none}
    assert mistake(certfile=files.cert, **password).startswith("keyfile_password_file: there is no")
    asks = {"client_certs": "required", "ca_certs": none}
    assert mistake(certfile=files.both, **asks).startswith("ca_certs: there is no file")
    assert mistake(certfile="a\0b").startswith("certfile: a\0b cannot be read: ")


def test_a_file_that_may_not_be_read(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)  # the tests may run as root
    assert mistake(certfile=files.cert) == (
        f"certfile: this user may not read {files.cert}; change its owner or its group"
    )


def test_files_that_are_something_else(files: Files, tmp_path: Path) -> None:
    assert mistake(certfile=files.key, keyfile=files.key).endswith(
        "is no certificate in PEM: it holds a key; give that as keyfile, and the certificate as"
        " certfile"
    )
    assert mistake(certfile=files.cert).endswith("server.pem holds no key; give keyfile too")
    assert mistake(certfile=files.cert, keyfile=files.cert).endswith("certificate; give its key")
    der, text = tmp_path / "der", tmp_path / "text"
    openssl("x509", "-in", str(files.cert), "-outform", "der", "-out", str(der))
    text.write_text("hello")
    assert "try openssl x509 -inform der" in mistake(certfile=der)
    assert "try openssl pkey -inform der" in mistake(certfile=files.cert, keyfile=der)
    assert "BEGIN CERTIFICATE" in mistake(certfile=text)
    assert "PRIVATE KEY-----" in mistake(certfile=files.cert, keyfile=text)
    asks = {"client_certs": "required", "ca_certs": text}
    assert mistake(certfile=files.both, **asks).startswith(
        f"ca_certs: {text} holds no certificates"
    )
    broken = tmp_path / "broken"
    broken.write_bytes(
        files.both.read_bytes().replace(b"CERTIFICATE-----\nMI", b"CERTIFICATE-----\nX")
    )
    assert mistake(certfile=broken) == f"certfile: OpenSSL cannot use {broken}; is it damaged?"
    asks["ca_certs"] = tmp_path
    assert mistake(certfile=files.both, **asks).endswith(f"run openssl rehash {tmp_path}")


def test_a_key_of_another_certificate(files: Files) -> None:
    assert mistake(certfile=files.cert, keyfile=files.other_key).startswith(
        "keyfile: the key is not that of the first certificate in "
    )


def test_passwords(files: Files, tmp_path: Path) -> None:
    pair = {"certfile": files.cert, "keyfile": files.encrypted}
    assert mistake(**pair).startswith(f"keyfile: the key in {files.encrypted} is encrypted; give")
    wrong = mistake(**pair, keyfile_password="wrong")
    assert wrong.startswith("keyfile_password: it does not open the key in")
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    assert mistake(**pair, keyfile_password_file=secret).startswith(
        "keyfile_password_file: it does"
    )
    secret.write_bytes(b"\xff")
    assert mistake(**pair, keyfile_password_file=secret).endswith("is not text in UTF-8")
    assert PASSWORD not in repr(Tls(keyfile_password=PASSWORD))


def test_a_server_that_cannot_start_leaves_nothing_open(files: Files) -> None:
    server = ThreadedServer(app, bind="127.0.0.1:0", certfile=str(files.cert))
    with pytest.raises(ConfigError):
        server.start()
    assert server.addresses == []


# ---- Reloading ------------------------------------------------------------------------------


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sync", {"poller": "auto"}),
        ("sync", {"poller": "queue"}),
        ("asgi", {"loops": 1}),
        ("asgi", {"loops": 2}),
        ("hybrid", {}),
    ],
)
def test_reload(
    serve: Serve,
    connect_tls: Connect,
    files: Files,
    tmp_path: Path,
    kind: str,
    options: dict[str, Any],
) -> None:
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"
    for source, target in zip((files.cert, files.key), pair, strict=True):
        shutil.copyfile(source, target)
    if kind == "hybrid":
        options["asgi_app"] = asgi
    served = asgi if kind == "asgi" else app
    server = serve(served, certfile=str(pair[0]), keyfile=str(pair[1]), **options)
    before = connect_tls(server)
    first = session_of(before).getpeercert(True)

    for source, target in zip(files.authority.issue("renewed"), pair, strict=True):
        shutil.copyfile(source, target)
    assert session_of(connect_tls(server)).getpeercert(True) == first
    assert server.reload_certificates()
    after = connect_tls(server)
    assert session_of(after).getpeercert(True) != first
    assert before.get().body == after.get().body == b"https"


def test_a_broken_certificate_leaves_the_old_one(
    serve: Serve, connect_tls: Connect, files: Files, tmp_path: Path, caplog: Any
) -> None:
    path = tmp_path / "cert.pem"
    shutil.copyfile(files.both, path)
    server = serve(app, certfile=str(path))
    first = session_of(connect_tls(server)).getpeercert(True)
    path.write_bytes(files.cert.read_bytes() + files.other_key.read_bytes())
    assert not server.reload_certificates()
    assert "The certificate was not reloaded, and the old one stays: certfile: the key" in (
        caplog.text
    )
    client = connect_tls(server)
    assert session_of(client).getpeercert(True) == first
    assert client.get().body == b"https"


def test_reload_while_clients_come(serve: Serve, connect_tls: Connect, files: Files) -> None:
    server = serve(app, certfile=str(files.both), threads=2)
    done = threading.Event()

    def reload() -> None:
        while not done.is_set():
            server.reload_certificates()

    thread = threading.Thread(target=reload)
    thread.start()
    try:
        for _ in range(40):
            assert connect_tls(server).get().body == b"https"
    finally:
        done.set()
        thread.join()


def test_reload_without_tls_is_nothing(serve: Serve) -> None:
    server = serve(app)
    assert server.reload_certificates()
    assert server.urls[0].startswith("http://")


# ---- Client certificates --------------------------------------------------------------------


def with_certificate(files: Files, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = files.authority.trusting()
    context.load_cert_chain(*(pair or files.client))
    return context


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_client_certificates(
    serve: Serve, connect_tls: Connect, files: Files, version: str
) -> None:
    server = serve(
        app,
        certfile=str(files.both),
        client_certs="required",
        ca_certs=str(files.authority.cert),
        threads=1,
    )
    context = with_certificate(files)
    context.maximum_version = ssl.TLSVersion[version]
    client = connect_tls(server, context)
    ann = {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": r"CN=Ann,O=Müller\, Söhne\+Co,C=DE",
        "SSL_CLIENT_S_DN_CN": "Ann",
        "SSL_CLIENT_S_DN_O": "Müller, Söhne+Co",
        "SSL_CLIENT_I_DN": "CN=An authority",
        "SSL_CLIENT_SAN_DNS_0": "ann.example",
        "SSL_CLIENT_SAN_Email_0": "ann@example.com",
        "SSL_PROTOCOL": version.replace("_", "."),
    }
    for name, value in ann.items():
        assert client.get(f"/environ/{name}").body.decode() == value
    pem = client.get("/environ/SSL_CLIENT_CERT").body.decode()
    assert ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(
        files.client[0].read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )


def test_every_client_is_itself(serve: Serve, connect_tls: Connect, files: Files) -> None:
    server = serve(
        app,
        certfile=str(files.both),
        client_certs="optional",
        ca_certs=str(files.authority.cert),
        threads=1,
    )
    ann = connect_tls(server, with_certificate(files))
    bob = connect_tls(server, with_certificate(files, files.authority.issue("bob", "/CN=Bob")))
    nobody = connect_tls(server)
    for _ in range(3):
        assert ann.get("/environ/SSL_CLIENT_S_DN_CN").body == b"Ann"
        assert bob.get("/environ/SSL_CLIENT_S_DN_CN").body == b"Bob"
        assert nobody.get("/environ/SSL_CLIENT_S_DN_CN").body == b"-"
        assert nobody.get("/environ/SSL_CLIENT_VERIFY").body == b"NONE"


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_what_an_asgi_application_is_told(
    serve: Serve, connect_tls: Connect, files: Files, version: str, hybrid: bool
) -> None:
    async def tells(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = json.dumps(scope["extensions"]["tls"]).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    options: dict[str, Any] = {"asgi_app": tells} if hybrid else {"loops": 1}
    server = serve(
        (lambda request: None) if hybrid else tells,
        certfile=str(files.both),
        client_certs="optional",
        ca_certs=str(files.authority.cert),
        **options,
    )
    context = with_certificate(files)
    context.maximum_version = ssl.TLSVersion[version]
    ann = connect_tls(server, context)
    told = json.loads(ann.get().body)
    assert told["client_cert_name"] == r"CN=Ann,O=Müller\, Söhne\+Co,C=DE"
    assert told["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert told["tls_version"] == {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version]
    cipher = session_of(ann).cipher()
    assert cipher is not None
    ids = {each["name"]: each["id"] & 0xFFFF for each in context.get_ciphers()}
    assert told["cipher_suite"] == ids[cipher[0]]
    assert told["server_cert"] is told["client_cert_error"] is None
    nobody = json.loads(connect_tls(server).get().body)
    assert (nobody["client_cert_name"], nobody["client_cert_chain"]) == (None, [])


def test_clients_without_a_certificate_are_refused(
    serve: Serve, connect_tls: Connect, files: Files, tmp_path: Path
) -> None:
    server = serve(
        app,
        certfile=str(files.both),
        client_certs="required",
        ca_certs=str(files.authority.cert),
    )
    stranger = Authority(tmp_path, "A stranger").issue("stranger")
    for context in (files.authority.trusting(), with_certificate(files, stranger)):
        with pytest.raises(ssl.SSLError, match=r"alert (certificate required|unknown ca)"):
            # in TLS 1.3 the client is done before the server has looked at its certificate
            connect_tls(server, context).get()


def test_authorities_in_a_folder(
    serve: Serve, connect_tls: Connect, files: Files, tmp_path: Path
) -> None:
    shutil.copyfile(files.authority.cert, tmp_path / "ca.pem")
    openssl("rehash", str(tmp_path))
    options = {"client_certs": "required", "ca_certs": str(tmp_path)}
    server = serve(app, certfile=str(files.both), **options)
    assert connect_tls(server, with_certificate(files)).get().body == b"https"


def test_a_sync_app_is_told_too(serve: Serve, connect_tls: Connect, files: Files) -> None:
    def tells(request: Request) -> Response:
        return Response(200, [], repr(sorted(request.tls.items())).encode())

    client = connect_tls(serve(tells, certfile=str(files.both)))
    cipher, protocol = session_of(client).cipher(), session_of(client).version()
    assert cipher is not None
    expected = repr([("SSL_CIPHER", cipher[0]), ("SSL_PROTOCOL", protocol)])
    assert client.get().body.decode() == expected
    with serve(tells) as plain, socket.create_connection(("127.0.0.1", plain.port), 10) as sock:
        assert Client(sock).get().body == b"[]"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a,b", r"CN=a\,b"), ("#a", r"CN=\#a"), (" a ", r"CN=\ a\ "), ("a\0b", r"CN=a\00b")],
)
def test_no_name_passes_for_another(value: str, text: str) -> None:
    assert distinguished(((("commonName", value),),)) == text


# ---- The wrong port -------------------------------------------------------------------------


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_a_plain_request_to_a_port_with_tls(
    serve: Serve, connect: Connect, connect_tls: Connect, files: Files, poller: str, caplog: Any
) -> None:
    server = serve(app, certfile=str(files.both), poller=poller, threads=1)
    with caplog.at_level(logging.INFO, "threadwell"):
        for method in ("GET", "OPTIONS", "PATCH", "POST"):
            client = connect(server)
            client.send(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode() + b"x" * 5000)
            answer = client.answer()
            assert answer.status == 400
            assert answer.body == b"This port speaks https, and the request came without TLS\n"
            assert client.closed()
            assert connect_tls(server).get().body == b"https"
    said = [text for text in caplog.messages if "asked for" in text]
    assert said == [
        f"127.0.0.1 asked for http at 127.0.0.1:{server.port}, which speaks https; use https://"
        " there"
    ]


def test_a_handshake_on_a_port_without_tls(
    serve: Serve, connect: Connect, files: Files, caplog: Any
) -> None:
    server = serve(app, threads=1)
    with caplog.at_level(logging.INFO, "threadwell"):
        for _ in range(3):
            raw = socket.create_connection(("127.0.0.1", server.port), 10)
            with raw, pytest.raises(ssl.SSLError):
                files.authority.trusting().wrap_socket(raw, server_hostname="127.0.0.1")
        client = connect(server)
        client.send(b"\x16\x03\x01\x02\x00\x01")
        answer = client.answer()
    assert answer.status == 400
    assert answer.body == b"This port speaks http, and the client began a TLS handshake\n"
    assert len([text for text in caplog.messages if "asked for https at" in text]) == 1
    assert connect(server).get().body == b"http"


def test_what_was_not_said_is_counted(serve: Serve, connect: Connect, caplog: Any) -> None:
    server = serve(app)
    worker = server._worker
    assert worker is not None

    def mistake_the_port() -> None:
        client = connect(server)
        client.send(b"\x16\x03\x01")
        assert client.answer().status == 400

    with caplog.at_level(logging.INFO, "threadwell"):
        for _ in range(3):
            mistake_the_port()
        worker.throttled_log._next.clear()  # a minute later
        mistake_the_port()
    first, second = [text for text in caplog.messages if "asked for https" in text]
    assert first.endswith("or give the server a certificate")
    assert second.endswith("(2 more such clients since this was said last)")


# ---- Clients that end their output ----------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_ends_its_output_gets_its_answers(
    serve: Serve, connect_tls: Connect, files: Files, asynchronous: bool, announced: bool
) -> None:
    """By a closure alert, as RFC 8446, 6.1 has it, or without."""
    ended = threading.Event()

    def patient(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ended.wait(10)
        return app(environ, start_response)

    async def patient_asgi(scope: Any, receive: Any, send: Any) -> None:
        await no_lifespan(scope)
        await asyncio.to_thread(ended.wait, 10)
        await answer(send, b"https")

    kind = patient_asgi if asynchronous else patient
    client = connect_tls(serve(kind, certfile=str(files.both)))
    sock = session_of(client)
    client.send(GET * 3)
    if announced:
        # OpenSSL reads once it has sent its alert, and takes an answer for a fault: there is none
        sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.unwrap()
        sock.settimeout(10)
    else:
        socket.socket.shutdown(sock, socket.SHUT_WR)
    ended.set()
    assert [client.answer().body for _ in range(3)] == [b"https"] * 3
    with contextlib.suppress(ssl.SSLZeroReturnError):  # how one who has said it hears it, too
        assert client.closed()


# ---- Handshakes that never end --------------------------------------------------------------


def test_promise_3_a_thousand_half_open_handshakes_and_the_requests_of_others(
    serve: Serve, connect: Connect, connect_tls: Connect, files: Files
) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    binds = ["127.0.0.1:0", "http://127.0.0.1:0"]
    certfile = str(files.both)
    server = serve(app, bind=binds, certfile=certfile, threads=1, handshake_timeout=600)
    pool = server.pools[0]
    assert isinstance(pool, ThreadPool)
    for number in range(1000):
        connect(server).send(hello[: number % len(hello)])
    until(lambda: len(pool.poller.connections) == 1000)
    with socket.create_connection(server.addresses[1], 10) as sock:
        plain = Client(sock)
        for _ in range(20):
            started = time.monotonic()
            assert plain.get().body == b"http"
            assert connect_tls(server).get().body == b"https"
            assert time.monotonic() - started < 2
    # they are all there yet
    assert len(pool.poller.connections) >= 1000


# ---- Other programs -------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(serve: Serve, files: Files) -> None:
    server = serve(
        app,
        certfile=str(files.both),
        client_certs="required",
        ca_certs=str(files.authority.cert),
    )
    cert, key = map(str, files.client)
    url = f"{server.urls[0]}/environ/SSL_CLIENT_S_DN_CN"
    command = ["curl", "-sS", "--cacert", str(files.authority.cert), "--cert", cert, "--key", key]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Ann", "")


# ---- Made up --------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, where the user has it on Linux."""
    pytest.importorskip("trustme", reason="trustme has no wheels here", exc_type=ImportError)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("threadwell.worker.tls.adhoc.sys.platform", "linux")
    return tmp_path / "threadwell"


def trusting(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=path)
    return context


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_adhoc_is_the_same_after_a_restart(
    serve: Serve, connect_tls: Connect, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(app, cert="adhoc") as server:
        authority = server.authority_file
        assert authority == cache / "localhost-ca.pem"
        client = connect_tls(server, trusting(authority))
        assert client.get().body == b"https"
        first = session_of(client).getpeercert(True)
    assert mode(cache) == 0o700
    assert {path.name: mode(path) for path in cache.iterdir()} == {
        "localhost-ca.pem": 0o600,
        "localhost.pem": 0o600,
    }
    assert b"KEY" not in authority.read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "trustme", None)  # not needed any more
    again = connect_tls(serve(app, cert="adhoc"), trusting(authority))
    assert session_of(again).getpeercert(True) == first


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "dev.example"])
def test_adhoc_is_for_the_local_names_and_those_that_are_bound(cache: Path, name: str) -> None:
    from threadwell.worker.tls import adhoc

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    hosts = ["dev.example", "localhost", "bad_name", "fe80::1%eth0"]
    adhoc.load(context, hosts)
    authority = adhoc.authority_file(hosts)
    assert authority is not None
    ours, theirs = socket.socketpair()

    def echo() -> None:
        with context.wrap_socket(theirs, server_side=True) as sock:
            sock.sendall(sock.recv(1))

    thread = threading.Thread(target=echo)
    thread.start()
    with ours, trusting(authority).wrap_socket(ours, server_hostname=name) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    thread.join()


def test_adhoc_leaves_out_a_name_that_cannot_be_in_a_certificate(cache: Path) -> None:
    from threadwell.worker.tls import adhoc

    for host in ("ab--cd", "a..b", "x" * 64, "0.0.0.0", ""):
        adhoc.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), [host])
        assert adhoc.authority_file([host]) is not None


def test_adhoc_makes_another_for_other_names_and_after_a_year(cache: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    from threadwell.worker.tls import adhoc

    adhoc.load(context)
    adhoc.load(context, ["dev.example"])
    assert len(list(cache.glob("*-ca.pem"))) == 2
    kept = cache / "localhost.pem"
    before = kept.read_bytes()
    adhoc.load(context)
    assert kept.read_bytes() == before
    old = time.time() - 366 * 86400
    os.utime(kept, (old, old))
    adhoc.load(context)
    assert kept.read_bytes() != before
    assert kept.read_bytes().endswith((cache / "localhost-ca.pem").read_bytes())


@pytest.mark.parametrize("spoil", ["readable", "edited", "foreign folder", "no folder"])
def test_adhoc_uses_nothing_that_others_could_have_touched(
    cache: Path, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threadwell.worker.tls import adhoc

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    adhoc.load(context)
    kept = cache / "localhost.pem"
    before = kept.read_bytes()
    if spoil == "readable":
        kept.chmod(0o644)
    elif spoil == "edited":
        kept.write_bytes(before[: len(before) // 2])
    elif spoil == "foreign folder":
        cache.chmod(0o777)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    adhoc.load(context)
    assert list(temporary.iterdir()) == []
    if spoil in ("readable", "edited"):
        assert kept.read_bytes() != before
        assert mode(kept) == 0o600
    else:
        assert kept.read_bytes() == before
        assert adhoc.authority_file() is None


def test_adhoc_without_trustme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "trustme", None)
    assert "pip install trustme" in mistake(cert="adhoc")
