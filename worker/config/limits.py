"""Limits on what a client may send, and on how long it may take."""

from __future__ import annotations

from dataclasses import dataclass

from .option import KIB, MIB, option


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what a client may send. A request beyond one is answered with the named status."""

    # Apache's default (LimitRequestLine), and about that of nginx with its 8 KiB buffers.
    request_line: int = option(
        "limit_request_line",
        8190,
        "Maximum length of the request line. Beyond it the answer is 414.",
        unit="bytes",
        low=64,
    )
    field_size: int = option(
        "limit_field_size",
        8190,
        "Maximum length of a header field line. Beyond it the answer is 431.",
        unit="bytes",
        low=64,
    )
    field_count: int = option(
        "limit_fields",
        100,
        "Maximum number of header field lines in a request. Beyond it the answer is 431.",
        low=1,
    )
    head: int = option(
        "limit_head",
        64 * KIB,
        "Maximum size of a request head. Beyond it the answer is 431.",
        unit="bytes",
        low=256,
    )
    chunk_line: int = option(
        "limit_chunk_line",
        4 * KIB,
        "Maximum length of a chunk-size line with its extensions. Beyond it the answer is 400.",
        unit="bytes",
        low=18,
    )
    chunk_extensions: int = option(
        "limit_chunk_extensions",
        16 * KIB,
        "Maximum size of all chunk extensions of one body together. Beyond it the answer is 400.",
        unit="bytes",
        low=0,
    )
    trailers: int = option(
        "limit_trailers",
        8 * KIB,
        "Maximum size of the trailer section of a chunked body. Beyond it the answer is 431.",
        unit="bytes",
        low=2,
    )
    body: int = option(
        "limit_body",
        256 * MIB,
        "Maximum size of a request body. Beyond it the answer is 413.",
        unit="bytes",
        low=0,
    )
    memory_body: int = option(
        "memory_body",
        4 * MIB,
        "Maximum size of a request body that is kept in memory. A larger one goes to a temporary"
        " file.",
        unit="bytes",
        low=0,
    )
    memory_bodies: int = option(
        "memory_bodies",
        64 * MIB,
        "Maximum size of all request bodies in memory that are larger than 256 KiB, for each"
        " process. While it is used up, a body of more than 256 KiB goes to a temporary file.",
        unit="bytes",
        low=0,
    )
    connections: int = option(
        "limit_connections",
        0,
        "Maximum number of open connections; 0 derives it from the file descriptor limit. At the"
        " limit idle connections are closed first, then new ones wait in the backlog.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Absolute deadlines in seconds: a client cannot extend one by sending a byte at a time."""

    handshake: float = option(
        "handshake_timeout", 5.0, "Time for a TLS handshake.", unit="seconds", low=0.1
    )
    head: float = option(
        "head_timeout",
        10.0,
        "Time for a complete request head to arrive. Then the answer is 408.",
        unit="seconds",
        low=0.1,
    )
    body: float = option(
        "body_timeout",
        30.0,
        "Time for a request body to arrive, plus one second for every `min_rate` bytes received."
        " Then the answer is 408.",
        unit="seconds",
        low=0.1,
    )
    write: float = option(
        "write_timeout",
        30.0,
        "Time for the client to accept a response, plus one second for every `min_rate` bytes"
        " accepted. Then the connection is cut.",
        unit="seconds",
        low=0.1,
    )
    # Longer than the idle timeout of common proxies (60 s): the proxy should close first, or it may
    # send a request on a connection that the server is closing.
    keep_alive: float = option(
        "keep_alive",
        75.0,
        "Time that an idle connection waits for its next request.",
        unit="seconds",
        low=0.0,
    )
    linger: float = option(
        "linger_timeout",
        2.0,
        "Time for the client to read a final response before the server cuts the connection.",
        unit="seconds",
        low=0.0,
    )
    graceful: float = option(
        "graceful_timeout",
        30.0,
        "Time for requests in flight to finish when the server stops.",
        unit="seconds",
        low=0.0,
    )
    drain_idle: float = option(
        "drain_idle",
        2.0,
        "Time that idle connections stay open after SIGTERM, or in a worker that is replaced, for"
        " a request that is already on its way. Such a request is answered with Connection: close.",
        unit="seconds",
        low=0.0,
    )
    min_rate: int = option(
        "min_rate",
        500,
        "Minimum transfer rate of request bodies and responses. Each this many bytes extend"
        " body_timeout or write_timeout by one second.",
        unit="bytes per second",
        low=1,
    )
