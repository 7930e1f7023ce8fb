"""What an application is told of the TLS session of a client, in the words of Apache's mod_ssl."""

from __future__ import annotations

import ssl
from typing import Any

#: The attributes of a name that have a variable each, and their short names (RFC 4514, 3).
_SHORT = {
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "commonName": "CN",
    "userId": "UID",
    "domainComponent": "DC",
    "emailAddress": "emailAddress",
}
_VARIABLE = {"emailAddress": "Email"}
_ESCAPED = ',+"\\<>;'

_Name = tuple[tuple[tuple[str, str], ...], ...]


def variables(session: ssl.SSLSocket) -> dict[str, str]:
    """Version and cipher of `session`; `SSL_CLIENT_...` if clients are asked for certificates.

    As in an environ: UTF-8 in Latin-1. To be called when the handshake is done.
    """
    cipher = session.cipher()
    found = {"SSL_PROTOCOL": session.version() or "", "SSL_CIPHER": cipher[0] if cipher else ""}
    if session.context.verify_mode is not ssl.CERT_NONE:
        found |= _of_client(session)
    return {name: value.encode().decode("latin-1") for name, value in found.items()}


def _of_client(session: ssl.SSLSocket) -> dict[str, str]:
    # an untrusted one has not come through the handshake
    certificate: Any = session.getpeercert()
    encoded = session.getpeercert(binary_form=True)
    if not certificate or not encoded:
        return {"SSL_CLIENT_VERIFY": "NONE"}
    found = {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_M_SERIAL": certificate["serialNumber"],
        "SSL_CLIENT_V_START": certificate["notBefore"],
        "SSL_CLIENT_V_END": certificate["notAfter"],
        "SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(encoded),
    }
    for key, whose in (("S", "subject"), ("I", "issuer")):
        name = certificate[whose]
        found[f"SSL_CLIENT_{key}_DN"] = distinguished(name)
        for attribute, value in (pair for part in name for pair in part):
            if attribute in _SHORT:
                short = _VARIABLE.get(attribute, _SHORT[attribute])
                found.setdefault(f"SSL_CLIENT_{key}_DN_{short}", value)
    numbers = {"DNS": 0, "email": 0}
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in numbers:
            word = "Email" if kind == "email" else kind
            found[f"SSL_CLIENT_SAN_{word}_{numbers[kind]}"] = value
            numbers[kind] += 1
    return found


def distinguished(name: _Name) -> str:
    """`name` as text, its last part first (RFC 4514, 2.1)."""
    return ",".join(
        "+".join(
            f"{_SHORT.get(attribute, attribute)}={_escape(value)}" for attribute, value in part
        )
        for part in reversed(name)
    )


def _escape(value: str) -> str:
    """`value` so that none of it passes for another part (RFC 4514, 2.4)."""
    text = "".join("\\" + letter if letter in _ESCAPED else letter for letter in value)
    text = text.replace("\0", "\\00")
    if text.startswith(("#", " ")):
        text = "\\" + text
    return text[:-1] + "\\ " if len(value) > 1 and value.endswith(" ") else text
