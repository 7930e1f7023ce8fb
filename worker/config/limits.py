"""How much a client may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass

from .option import KIB, MIB, option


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask for. Each excess has its own answer: 400, 413, 414, 431 or 503."""

    # 8190 is what Apache allows, and what nginx's 8 KiB buffers come to.
    request_line: int = option(
        "limit_request_line", 8190, "Longest request line; beyond it 414.", unit="bytes", low=64
    )
    field_size: int = option(
        "limit_field_size", 8190, "Longest header line; beyond it 431.", unit="bytes", low=64
    )
    field_count: int = option(
        "limit_fields", 100, "Most header lines of a request; beyond it 431.", low=1
    )
    head: int = option(
        "limit_head", 64 * KIB, "Largest request head; beyond it 431.", unit="bytes", low=256
    )
    chunk_line: int = option(
        "limit_chunk_line",
        4 * KIB,
        "Longest chunk-size line, its extensions included; beyond it 400.",
        unit="bytes",
        low=18,
    )
    chunk_extensions: int = option(
        "limit_chunk_extensions",
        16 * KIB,
        "Chunk extensions of one body, all together; beyond it 400.",
        unit="bytes",
        low=0,
    )
    trailers: int = option(
        "limit_trailers",
        8 * KIB,
        "Trailer section of a chunked body; beyond it 431.",
        unit="bytes",
        low=2,
    )
    body: int = option(
        "limit_body", 256 * MIB, "Largest request body; beyond it 413.", unit="bytes", low=0
    )
    memory_body: int = option(
        "memory_body",
        256 * KIB,
        "A request body up to this size is kept in memory; a larger one goes to a temporary file.",
        unit="bytes",
        low=0,
    )
    connections: int = option(
        "limit_connections",
        0,
        "Most connections open at once; 0 asks the file descriptor limit. At the limit idle"
        " connections are closed first, then new ones wait in the backlog.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Absolute deadlines, in seconds: a byte a second does not extend one."""

    handshake: float = option(
        "handshake_timeout", 5.0, "For a TLS handshake.", unit="seconds", low=0.1
    )
    head: float = option(
        "head_timeout", 10.0, "For a whole request head; then 408.", unit="seconds", low=0.1
    )
    body: float = option(
        "body_timeout",
        30.0,
        "For a request body, plus a second for every `min_rate` bytes that have come; then 408.",
        unit="seconds",
        low=0.1,
    )
    write: float = option(
        "write_timeout",
        30.0,
        "For the client to take a response, plus a second for every `min_rate` bytes it has taken.",
        unit="seconds",
        low=0.1,
    )
    # Longer than the idle time of the usual proxies (60 s), which must be the side that closes.
    keep_alive: float = option(
        "keep_alive", 75.0, "For the next request on a connection.", unit="seconds", low=0.0
    )
    linger: float = option(
        "linger_timeout",
        2.0,
        "For the client to read a final answer before its connection is cut.",
        unit="seconds",
        low=0.0,
    )
    graceful: float = option(
        "graceful_timeout",
        30.0,
        "For the requests in flight when the server is told to stop.",
        unit="seconds",
        low=0.0,
    )
    drain_idle: float = option(
        "drain_idle",
        2.0,
        "After SIGTERM, and in a worker that is replaced: how long idle connections are kept for a"
        " request that is on its way; it is answered with Connection: close.",
        unit="seconds",
        low=0.0,
    )
    min_rate: int = option(
        "min_rate",
        500,
        "Slowest transfer that keeps a body or a response alive.",
        unit="bytes per second",
        low=1,
    )
