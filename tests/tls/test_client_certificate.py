"""Client certificates: required, verified, and told to applications."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import (
    Request,
    Response,
    ThreadedServer,
)
from threadwell.worker.tls.client_certificate import distinguished

from ..helpers.certificates import Authority, openssl
from ..helpers.wire_client import Client
from .files import Files, app, session_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
