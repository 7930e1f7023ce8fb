"""The variables of a TLS session and of the client's certificate, named as in Apache's mod_ssl."""

from __future__ import annotations

import ssl
from typing import Any

#: The attributes of a distinguished name that have variables, with short names (RFC 4514, 3).
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
    """Return version and cipher of `session`, and `SSL_CLIENT_...` if certificates are requested.

    The values are UTF-8 decoded as Latin-1, as in a WSGI environ. Call it after the handshake.
    """
    cipher = session.cipher()
    found = {"SSL_PROTOCOL": session.version() or "", "SSL_CIPHER": cipher[0] if cipher else ""}
    if session.context.verify_mode is not ssl.CERT_NONE:
        found |= _of_client(session)
    return {name: value.encode().decode("latin-1") for name, value in found.items()}


def _of_client(session: ssl.SSLSocket) -> dict[str, str]:
    # the handshake has already rejected an untrusted certificate
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
    """Return `name` as text, its last part first (RFC 4514, 2.1)."""
    return ",".join(
        "+".join(
            f"{_SHORT.get(attribute, attribute)}={_escape(value)}" for attribute, value in part
        )
        for part in reversed(name)
    )


def _escape(value: str) -> str:
    """Escape the separators in `value` (RFC 4514, 2.4)."""
    text = "".join("\\" + letter if letter in _ESCAPED else letter for letter in value)
    text = text.replace("\0", "\\00")
    if text.startswith(("#", " ")):
        text = "\\" + text
    return text[:-1] + "\\ " if len(value) > 1 and value.endswith(" ") else text
