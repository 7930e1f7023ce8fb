"""Settings of listening sockets, TLS and HTTP/2."""

from __future__ import annotations

from dataclasses import dataclass

from .option import MIB, option


@dataclass(frozen=True, slots=True)
class Bind:
    """Addresses to listen on, and how the sockets are opened."""

    addresses: tuple[str, ...] = option(
        "bind",
        ("127.0.0.1:8000",),
        "Address to listen on: PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH, unix:@NAME (an abstract"
        " socket, to which every local user may connect) or fd://N. May be repeated. An http://"
        " before the address switches TLS off for it.",
    )
    # The default of gunicorn and uvicorn. Linux caps it at net.core.somaxconn.
    backlog: int = option(
        "backlog",
        2048,
        "Maximum number of connections that the kernel queues until they are accepted.",
        low=1,
    )
    unix_permissions: str = option(
        "unix_permissions",
        "",
        "Permissions of a unix socket in octal, such as 660. Empty leaves them to the umask.",
    )
    reuse_port: bool = option(
        "reuse_port",
        False,
        "Share a TCP port with other servers that also set SO_REUSEPORT; the kernel distributes"
        " the connections. The workers of one server do not need it.",
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate, and the certificates that clients must present."""

    certfile: str = option(
        "certfile",
        "",
        "PEM file with the server's certificate, followed by its intermediate certificates."
        " Switches TLS on.",
    )
    keyfile: str = option("keyfile", "", "PEM file with the private key, if it is not in certfile.")
    keyfile_password: str = option(
        "keyfile_password", "", "Password of an encrypted private key.", secret=True
    )
    keyfile_password_file: str = option(
        "keyfile_password_file",
        "",
        "File whose first line is the password of an encrypted private key. There is no flag for"
        " the password itself, since all users can read command lines; set"
        " THREADWELL_KEYFILE_PASSWORD instead.",
    )
    cert: str = option(
        "cert",
        "",
        "Set to adhoc to generate a certificate for development with trustme. Switches TLS on.",
        choices=("adhoc",),
    )
    ca_certs: str = option(
        "ca_certs",
        "",
        "Certificate authorities whose client certificates are accepted: a PEM file, or a"
        " directory of hashed ones.",
    )
    client_certs: str = option(
        "client_certs",
        "none",
        "Whether to request client certificates. With required, clients without one are refused"
        " in the handshake.",
        choices=("none", "optional", "required"),
    )
    min_version: str = option(
        "tls_min_version", "1.2", "Minimum TLS version.", choices=("1.2", "1.3")
    )

    @property
    def on(self) -> bool:
        """Whether TLS is on: a certificate is configured."""
        return bool(self.certfile or self.cert)


@dataclass(frozen=True, slots=True)
class Http2:
    """Whether HTTP/2 is offered, and what its connections may take."""

    # hypercorn and granian offer it by default. Here it adds event loops to the process, and that
    # must not depend on whether some other package has installed hpack.
    on: bool = option(
        "http2",
        False,
        "Offer HTTP/2 in the TLS handshake (ALPN). Needs TLS and the hpack library.",
    )
    # The recommended minimum (RFC 9113, 6.5.2), which clients also assume before SETTINGS.
    streams: int = option(
        "http2_streams",
        100,
        "Maximum number of concurrent requests on an HTTP/2 connection. Further ones are refused"
        " before they run.",
        low=1,
    )
    # A hundred responses of 160 KiB.
    send_buffer: int = option(
        "http2_send_buffer",
        16 * MIB,
        "Maximum size of the responses that wait in memory for the client of an HTTP/2 connection."
        " Beyond it, further requests of the connection wait until the client reads.",
        unit="bytes",
        low=1,
    )
    send_buffer_total: int = option(
        "http2_send_buffer_total",
        256 * MIB,
        "The same for all HTTP/2 connections of a process together. Beyond it, responses are"
        " dropped, the largest first: those of clients that read too slowly, and of connections"
        " for which more than http2_send_buffer waits.",
        unit="bytes",
        low=1,
    )
