"""The ASGI extension `tls`: the description of a TLS session for the application."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from ..tls.client_certificate import distinguished

if TYPE_CHECKING:
    from ..tls.session import TLSSocket

# As they go over the wire (RFC 8446, 4.2.1).
_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def tls_extension(sock: TLSSocket) -> dict[str, Any] | None:
    """See the ASGI TLS extension, version 0.2; None while the handshake is under way.

    Python does not report the server's certificate, nor, before 3.13, the client's chain beyond its
    own certificate. The handshake fails for a certificate that is not trusted.
    """
    session = sock.session
    version = session.version()
    if sock.extension is None and version:
        sock.extension = _describe(session, version)
    return sock.extension


def _describe(session: ssl.SSLSocket, version: str) -> dict[str, Any]:
    certificate: Any = session.getpeercert() if session.context.verify_mode else None
    cipher = session.cipher()
    return {
        "server_cert": None,
        "client_cert_chain": _chain(session) if certificate else [],
        "client_cert_name": distinguished(certificate["subject"]) if certificate else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(version),
        "cipher_suite": cipher and _suite(session.context, cipher[0]),
    }


def _chain(session: ssl.SSLSocket) -> list[str]:
    chain: Any = [session.getpeercert(binary_form=True)]
    if hasattr(session, "get_verified_chain"):
        chain = session.get_verified_chain()
    return [ssl.DER_cert_to_PEM_cert(each) for each in chain]


def _suite(context: ssl.SSLContext, name: str) -> int | None:
    """The number of a cipher suite: the lower half of OpenSSL's id."""
    for each in context.get_ciphers():
        if each["name"] == name:
            return int(each["id"]) & 0xFFFF
    return None
