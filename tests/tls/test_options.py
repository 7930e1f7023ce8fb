"""TLS by options: what is given, and what is wrong with it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from threadwell.worker.tls.context import make_context

from ..helpers.certificates import PASSWORD, openssl
from ..helpers.wire_client import Client
from .files import Files, app, mistake, session_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
    with pytest.raises(ConfigError, match=r"^certfile: ssl_context sets it already"):
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


def test_contradictions(files: Files) -> None:
    cert = files.both
    assert mistake(cert="adhoc", certfile=cert).startswith("cert: adhoc generates a certificate")
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
        "is not a PEM certificate: it holds a key; give that as keyfile, and the certificate as"
        " certfile"
    )
    assert mistake(certfile=files.cert).endswith("server.pem has no key; give keyfile too")
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
        f"ca_certs: {text} has no PEM certificates"
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
