"""Where a server listens, and what it shows of itself there."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True, slots=True)
class Bind:
    """Where the server listens."""

    addresses: tuple[str, ...] = option(
        "bind",
        ("127.0.0.1:8000",),
        "Where to listen: PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH or fd://N. May be repeated. With"
        " http:// before it an address is without TLS where the others have it.",
    )
    # As gunicorn and uvicorn; the kernel caps it at net.core.somaxconn.
    backlog: int = option(
        "backlog", 2048, "Connections the kernel keeps waiting to be accepted.", low=1
    )
    unix_permissions: str = option(
        "unix_permissions",
        "",
        "Who may connect to a unix socket, as chmod has it in octal, such as 660; empty leaves it"
        " to the umask.",
    )
    reuse_port: bool = option(
        "reuse_port",
        False,
        "Share a TCP port with other servers that do so too (SO_REUSEPORT): the kernel distributes"
        " the connections. Workers of one server need no such thing.",
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate that the server shows, and those that clients must show."""

    certfile: str = option(
        "certfile",
        "",
        "The server's certificate in PEM, then those that lead to its authority. Switches TLS on.",
    )
    keyfile: str = option("keyfile", "", "The key of the certificate, if it is not in certfile.")
    keyfile_password: str = option(
        "keyfile_password", "", "The password of an encrypted key.", secret=True
    )
    keyfile_password_file: str = option(
        "keyfile_password_file",
        "",
        "A file whose first line is the password of an encrypted key. The password itself is taken"
        " from THREADWELL_KEYFILE_PASSWORD alone, because everybody may read command lines.",
    )
    cert: str = option(
        "cert",
        "",
        "adhoc makes a certificate up, for development, with trustme. Switches TLS on.",
        choices=("adhoc",),
    )
    ca_certs: str = option(
        "ca_certs",
        "",
        "The authorities whose client certificates are accepted: a file in PEM, or a folder of"
        " hashed ones.",
    )
    client_certs: str = option(
        "client_certs",
        "none",
        "Whether clients must show a certificate: with required the others are refused in the"
        " handshake.",
        choices=("none", "optional", "required"),
    )
    min_version: str = option(
        "tls_min_version", "1.2", "The oldest version of TLS.", choices=("1.2", "1.3")
    )

    @property
    def on(self) -> bool:
        """Whether there is a certificate, and so TLS."""
        return bool(self.certfile or self.cert)


@dataclass(frozen=True, slots=True)
class Http2:
    """Whether clients may choose HTTP/2, and what they may then do at once."""

    # hypercorn and granian offer it unasked; here it brings event loops into the process, and what
    # else has installed h2 must not decide that.
    on: bool = option(
        "http2",
        False,
        "Offer HTTP/2 to clients, in the TLS handshake (ALPN). Needs TLS and h2.",
    )
    # What RFC 9113, 6.5.2 recommends at least, and clients take for granted before they are told.
    streams: int = option(
        "http2_streams",
        100,
        "Requests at once on an HTTP/2 connection; more are refused, unexecuted.",
        low=1,
    )
