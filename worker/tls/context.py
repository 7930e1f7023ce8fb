"""The `ssl.SSLContext` that the options describe, with error messages that suggest a fix.

`ssl` is imported only if TLS is on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ..config import ServerConfig, changed
from ..config.groups import Tls
from ..errors import ConfigError
from ..net.bind import hosts_of

if TYPE_CHECKING:
    import ssl

_CERTIFICATES = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN TRUSTED CERTIFICATE-----")
_KEY = b"PRIVATE KEY-----"
_HASHED = re.compile("[0-9a-f]{8}\\.[0-9]+")
# Explanations of OpenSSL's reasons.
_REASONS = {
    "EE_KEY_TOO_SMALL": "its key is too short; make one of 2048 bits (RSA) or 256 (EC)",
    "CA_KEY_TOO_SMALL": "the key of its authority is too short",
    "CA_MD_TOO_WEAK": "it is signed with a hash that is no longer safe; have a new one issued",
}


class _NoPassword(Exception):
    """The key is encrypted, and no password was given."""


def context_for(config: ServerConfig) -> ssl.SSLContext | None:
    """The TLS context that `config` describes; None without TLS. See `make_context`."""
    return make_context(config.tls, hosts_of(config), http2=config.http2.on)


def make_context(
    tls: Tls, hosts: Sequence[str] = (), *, http2: bool = False
) -> ssl.SSLContext | None:
    """Return the TLS context for the settings `tls`; None if they do not switch TLS on.

    The files are read now; OpenSSL never prompts on the terminal. A generated certificate is valid
    for `hosts` too. With `http2`, ALPN offers HTTP/2. Raises `ConfigError`, which names the option,
    says why, and suggests a fix.
    """
    check(tls)
    if http2:
        require_hpack()
    if not tls.on:
        if http2:
            raise ConfigError("http2: clients negotiate it in TLS; give certfile, or adhoc as cert")
        return None
    try:
        import ssl
    except ImportError:
        option = "certfile" if tls.certfile else "cert"
        raise ConfigError(f"{option}: this Python was built without ssl; use another") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[tls.min_version]
    # compression leaks cookies to an eavesdropper (CRIME); renegotiation only costs CPU time
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Some clients end their output without close_notify. OpenSSL would then refuse to send the
    # response; HTTP framing already shows whether the request is complete.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    # OpenSSL sends two, and each costs a tenth of the handshake. A client gets another one with
    # each connection.
    context.num_tickets = 1
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    if tls.cert:
        from . import adhoc

        adhoc.load(context, hosts)
    else:
        _load_certificate(context, tls)
    if tls.client_certs != "none":
        _ask_clients(context, tls)
    return context


def require_hpack() -> None:
    """Raise `ConfigError` if hpack, which HTTP/2 needs, is not installed."""
    try:
        import hpack  # noqa: F401
    except ImportError:
        raise ConfigError("http2: hpack is not installed; pip install hpack") from None


def check(tls: Tls) -> None:
    """Check that the settings fit each other, without reading a file. Raises `ConfigError`."""
    if tls.cert and (tls.certfile or tls.keyfile):
        raise ConfigError(
            "cert: adhoc generates a certificate, and certfile or keyfile names one; leave one out"
        )
    if not tls.on and (given := changed(tls)):
        raise ConfigError(f"{given[0]}: there is no certificate; give certfile too")
    if tls.cert and (tls.keyfile_password or tls.keyfile_password_file):
        option = "keyfile_password" if tls.keyfile_password else "keyfile_password_file"
        raise ConfigError(f"{option}: the key that cert makes has none; leave one out")
    if tls.keyfile_password and tls.keyfile_password_file:
        raise ConfigError("keyfile_password: the password is given twice; leave one out")
    if tls.client_certs != "none" and not tls.ca_certs:
        raise ConfigError(
            f"client_certs: {tls.client_certs} accepts no client without authorities; give ca_certs"
            " too"
        )
    if tls.client_certs == "none" and tls.ca_certs:
        raise ConfigError(
            "ca_certs: no client is asked for a certificate; set client_certs to optional or"
            " required too"
        )


# ---- The server's certificate --------------------------------------------------------------


def _load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    import ssl

    _check_files(tls)
    password, asked = _password(tls), False
    option = "keyfile" if tls.keyfile else "certfile"
    key = tls.keyfile or tls.certfile

    def give() -> str:
        # without a callback OpenSSL would prompt on the terminal, and a service would hang
        nonlocal asked
        asked = True
        if password is None:
            raise _NoPassword
        return password

    try:
        context.load_cert_chain(tls.certfile, tls.keyfile or None, give)
    except _NoPassword:
        raise ConfigError(
            f"{option}: the key in {key} is encrypted; give keyfile_password_file, or set"
            " THREADWELL_KEYFILE_PASSWORD (in Python keyfile_password)"
        ) from None
    except ssl.SSLError as error:
        _explain(tls, error, option, asked=asked)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: {key} cannot be used: {error}") from None


def _explain(tls: Tls, error: ssl.SSLError, option: str, *, asked: bool) -> NoReturn:
    """Raise a `ConfigError` that explains `error`, which loading the certificate raised."""
    reason = error.reason
    if reason == "KEY_VALUES_MISMATCH":
        raise ConfigError(
            f"{option}: the key is not that of the first certificate in {tls.certfile}, which must"
            " be the server's own; give a certificate and its own key"
        ) from None
    if reason in _REASONS:
        raise ConfigError(f"certfile: {tls.certfile}: {_REASONS[reason]}") from None
    if asked:
        given = "keyfile_password_file" if tls.keyfile_password_file else "keyfile_password"
        raise ConfigError(
            f"{given}: it does not open the key in {tls.keyfile or tls.certfile}; give the one that"
            " the key was encrypted with"
        ) from None
    files, which = tls.certfile, "it"
    if tls.keyfile:
        files, which = f"{tls.certfile} with {tls.keyfile}", "one of them"
    said = f": {error.reason.lower().replace('_', ' ')}" if error.reason else ""
    raise ConfigError(f"certfile: OpenSSL cannot use {files}{said}; is {which} damaged?") from None


def _check_files(tls: Tls) -> None:
    """Detect mistakes that OpenSSL reports with one and the same error."""
    certificate = _read("certfile", tls.certfile)
    if not any(begin in certificate for begin in _CERTIFICATES):
        if _KEY in certificate:
            hint = "it holds a key; give that as keyfile, and the certificate as certfile"
        elif certificate[:1] == b"\x30":
            hint = f"it is DER; try openssl x509 -inform der -in {tls.certfile} -out cert.pem"
        else:
            hint = "give a file with a line -----BEGIN CERTIFICATE-----"
        raise ConfigError(f"certfile: {tls.certfile} is not a PEM certificate: {hint}")
    if not tls.keyfile:
        if _KEY not in certificate:
            raise ConfigError(f"certfile: {tls.certfile} has no key; give keyfile too")
        return
    key = _read("keyfile", tls.keyfile)
    if _KEY not in key:
        hint = "give a file with a line that begins with -----BEGIN and ends with " + _KEY.decode()
        if any(begin in key for begin in _CERTIFICATES):
            hint = "it holds a certificate; give its key"
        elif key[:1] == b"\x30":
            hint = f"it is DER; try openssl pkey -inform der -in {tls.keyfile} -out key.pem"
        raise ConfigError(f"keyfile: {tls.keyfile} is not a PEM key: {hint}")


def _password(tls: Tls) -> str | None:
    if not tls.keyfile_password_file:
        return tls.keyfile_password or None
    try:
        text = _read("keyfile_password_file", tls.keyfile_password_file).decode()
    except UnicodeDecodeError:
        raise ConfigError(
            f"keyfile_password_file: {tls.keyfile_password_file} is not text in UTF-8"
        ) from None
    # editors and echo add an end of line that is not part of the password
    return text.partition("\n")[0].removesuffix("\r")


def _read(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ConfigError(f"{option}: there is no file {path}; check the path") from None
    except PermissionError:
        raise ConfigError(
            f"{option}: this user may not read {path}; change its owner or its group"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{option}: {path} cannot be read: {why}; check the path") from None


# ---- The clients' certificates -------------------------------------------------------------


def _ask_clients(context: ssl.SSLContext, tls: Tls) -> None:
    import ssl

    if os.path.isdir(tls.ca_certs):
        # OpenSSL looks up authorities by hashed file names at each handshake: openssl-rehash(1)
        try:
            names = os.listdir(tls.ca_certs)
        except OSError as error:
            why = f"ca_certs: {tls.ca_certs} cannot be read: {error.strerror}; check the path"
            raise ConfigError(why) from None
        if not any(map(_HASHED.fullmatch, names)):
            raise ConfigError(
                f"ca_certs: no file in {tls.ca_certs} is named as OpenSSL looks for it; run openssl"
                f" rehash {tls.ca_certs}"
            )
        context.load_verify_locations(capath=tls.ca_certs)
    else:
        authorities = _read("ca_certs", tls.ca_certs)
        try:
            if not any(begin in authorities for begin in _CERTIFICATES):
                raise ssl.SSLError
            context.load_verify_locations(cafile=tls.ca_certs)
        except ssl.SSLError:
            raise ConfigError(
                f"ca_certs: {tls.ca_certs} has no PEM certificates that OpenSSL can use; give"
                " those of the authorities"
            ) from None
    required = tls.client_certs == "required"
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
