"""What a server may be told: a frozen, validated `ServerConfig`, and the option table it makes.

Every field below is one option. Its name on the command line, in `serve(app, ...)` and on the
settings page, its type, its unit and its help text are read from the field, so they cannot drift.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any

from .cores import available_cores

KIB = 1024
MIB = 1024 * KIB


class ConfigError(ValueError):
    """A setting that cannot be used. The message says which, why, and what would do."""


def _option(
    name: str,
    default: Any,
    text: str,
    *,
    unit: str = "",
    low: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    word: str = "",
) -> Any:
    """A dataclass field that is also an option called `name` (dashes on the command line).

    A `secret` one has no flag, because everybody on the machine may read command lines, and no
    representation; the environment and the keyword take it. `word` may be said for 0.
    """
    metadata = {
        "name": name,
        "help": text,
        "unit": unit,
        "low": low,
        "choices": choices,
        "secret": secret,
        "word": word,
    }
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Bind:
    """Where the server listens."""

    addresses: tuple[str, ...] = _option(
        "bind",
        ("127.0.0.1:8000",),
        "Where to listen: PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH or fd://N. May be repeated. With"
        " http:// before it an address is without TLS where the others have it.",
    )
    # As gunicorn and uvicorn; the kernel caps it at net.core.somaxconn.
    backlog: int = _option(
        "backlog", 2048, "Connections the kernel keeps waiting to be accepted.", low=1
    )
    unix_permissions: str = _option(
        "unix_permissions",
        "",
        "Who may connect to a unix socket, as chmod has it in octal, such as 660; empty leaves it"
        " to the umask.",
    )
    reuse_port: bool = _option(
        "reuse_port",
        False,
        "Share a TCP port with other servers that do so too (SO_REUSEPORT): the kernel distributes"
        " the connections. Workers of one server need no such thing.",
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask for. Each excess has its own answer: 400, 413, 414, 431 or 503."""

    # 8190 is what Apache allows, and what nginx's 8 KiB buffers come to.
    request_line: int = _option(
        "limit_request_line", 8190, "Longest request line; beyond it 414.", unit="bytes", low=64
    )
    field_size: int = _option(
        "limit_field_size", 8190, "Longest header line; beyond it 431.", unit="bytes", low=64
    )
    field_count: int = _option(
        "limit_fields", 100, "Most header lines of a request; beyond it 431.", low=1
    )
    head: int = _option(
        "limit_head", 64 * KIB, "Largest request head; beyond it 431.", unit="bytes", low=256
    )
    chunk_line: int = _option(
        "limit_chunk_line",
        4 * KIB,
        "Longest chunk-size line, its extensions included; beyond it 400.",
        unit="bytes",
        low=18,
    )
    chunk_extensions: int = _option(
        "limit_chunk_extensions",
        16 * KIB,
        "Chunk extensions of one body, all together; beyond it 400.",
        unit="bytes",
        low=0,
    )
    trailers: int = _option(
        "limit_trailers",
        8 * KIB,
        "Trailer section of a chunked body; beyond it 431.",
        unit="bytes",
        low=2,
    )
    body: int = _option(
        "limit_body", 256 * MIB, "Largest request body; beyond it 413.", unit="bytes", low=0
    )
    memory_body: int = _option(
        "memory_body",
        256 * KIB,
        "A request body up to this size is kept in memory; a larger one goes to a temporary file.",
        unit="bytes",
        low=0,
    )
    connections: int = _option(
        "limit_connections",
        0,
        "Most connections open at once; 0 asks the file descriptor limit. At the limit idle"
        " connections are closed first, then new ones wait in the backlog.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Absolute deadlines, in seconds: a byte a second does not extend one."""

    handshake: float = _option(
        "handshake_timeout", 5.0, "For a TLS handshake.", unit="seconds", low=0.1
    )
    head: float = _option(
        "head_timeout", 10.0, "For a whole request head; then 408.", unit="seconds", low=0.1
    )
    body: float = _option(
        "body_timeout",
        30.0,
        "For a request body, plus a second for every `min_rate` bytes that have come; then 408.",
        unit="seconds",
        low=0.1,
    )
    write: float = _option(
        "write_timeout",
        30.0,
        "For the client to take a response, plus a second for every `min_rate` bytes it has taken.",
        unit="seconds",
        low=0.1,
    )
    # Longer than the idle time of the usual proxies (60 s), which must be the side that closes.
    keep_alive: float = _option(
        "keep_alive", 75.0, "For the next request on a connection.", unit="seconds", low=0.0
    )
    linger: float = _option(
        "linger_timeout",
        2.0,
        "For the client to read a final answer before its connection is cut.",
        unit="seconds",
        low=0.0,
    )
    graceful: float = _option(
        "graceful_timeout",
        30.0,
        "For the requests in flight when the server is told to stop.",
        unit="seconds",
        low=0.0,
    )
    drain_idle: float = _option(
        "drain_idle",
        2.0,
        "After SIGTERM, and in a worker that is replaced: how long idle connections are kept for a"
        " request that is on its way; it is answered with Connection: close.",
        unit="seconds",
        low=0.0,
    )
    min_rate: int = _option(
        "min_rate",
        500,
        "Slowest transfer that keeps a body or a response alive.",
        unit="bytes per second",
        low=1,
    )


@dataclass(frozen=True, slots=True)
class Workers:
    """How many threads serve, and how they wait."""

    threads: int = _option(
        "threads",
        0,
        "Threads that run requests; 0 chooses: 8, and on free-threaded Python at least twice the"
        " cores.",
        low=0,
    )
    max_streams: int = _option(
        "max_streams",
        500,
        "Long responses (streams, hijacked sockets) at once, each on a thread of its own beside"
        " the others; beyond it 503.",
        low=0,
    )
    poller: str = _option(
        "poller",
        "auto",
        "How connections wait: epoll (Linux), kqueue (macOS, BSD), or queue: one thread selects"
        " and distributes, everywhere.",
        choices=("auto", "epoll", "kqueue", "queue"),
    )


@dataclass(frozen=True, slots=True)
class ASGI:
    """How ASGI applications are run. Sync applications need nothing of it."""

    loop: str = _option(
        "loop",
        "auto",
        "Event loop of an ASGI application: asyncio, uvloop, or auto: uvloop where installed.",
        choices=("auto", "asyncio", "uvloop"),
    )
    loops: int = _option(
        "loops",
        0,
        "Event loops of an ASGI application, each on a thread and with a lifespan of its own; 0"
        " chooses: one, and on free-threaded Python one a core, but one beside a sync application.",
        low=0,
    )
    lifespan: str = _option(
        "lifespan",
        "auto",
        "Whether an ASGI application is told of start and stop: on refuses one that does not"
        " support it, auto serves that too.",
        choices=("auto", "on", "off"),
    )
    root_path: str = _option(
        "root_path", "", "Path under which a proxy serves an ASGI application, such as /api."
    )
    # As uvicorn and hypercorn.
    ws_message: int = _option(
        "limit_ws_message",
        16 * MIB,
        "Largest WebSocket message, after inflation; beyond it close code 1009.",
        unit="bytes",
        low=1,
    )
    ws_queue: int = _option(
        "limit_ws_queue",
        32,
        "WebSocket messages that wait for the application before no more are read.",
        low=1,
    )
    ws_ping: float = _option(
        "ws_ping_interval",
        20.0,
        "Time between two pings of a WebSocket; 0 sends none.",
        unit="seconds",
        low=0.0,
    )
    ws_pong: float = _option(
        "ws_ping_timeout",
        20.0,
        "For a client to answer a ping; then close code 1011.",
        unit="seconds",
        low=0.1,
    )
    ws_compression: str = _option(
        "ws_compression",
        "deflate",
        "Compression that a WebSocket's client may choose: deflate (permessage-deflate), or off.",
        choices=("deflate", "off"),
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate that the server shows, and those that clients must show."""

    certfile: str = _option(
        "certfile",
        "",
        "The server's certificate in PEM, then those that lead to its authority. Switches TLS on.",
    )
    keyfile: str = _option("keyfile", "", "The key of the certificate, if it is not in certfile.")
    keyfile_password: str = _option(
        "keyfile_password", "", "The password of an encrypted key.", secret=True
    )
    keyfile_password_file: str = _option(
        "keyfile_password_file",
        "",
        "A file whose first line is the password of an encrypted key. The password itself is taken"
        " from LOOPLESS_KEYFILE_PASSWORD alone, because everybody may read command lines.",
    )
    cert: str = _option(
        "cert",
        "",
        "adhoc makes a certificate up, for development, with trustme. Switches TLS on.",
        choices=("adhoc",),
    )
    ca_certs: str = _option(
        "ca_certs",
        "",
        "The authorities whose client certificates are accepted: a file in PEM, or a folder of"
        " hashed ones.",
    )
    client_certs: str = _option(
        "client_certs",
        "none",
        "Whether clients must show a certificate: with required the others are refused in the"
        " handshake.",
        choices=("none", "optional", "required"),
    )
    min_version: str = _option(
        "tls_min_version", "1.2", "The oldest version of TLS.", choices=("1.2", "1.3")
    )

    @property
    def on(self) -> bool:
        """Whether there is a certificate, and so TLS."""
        return bool(self.certfile or self.cert)


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes serve, and when one of them is replaced."""

    workers: int = _option(
        "workers",
        1,
        "Processes that serve, under a supervisor; auto (or 0) is one for each core that this"
        " process may use, and on free-threaded Python a single one. 1 serves in the process that"
        " was started, unless one of the options below needs a supervisor.",
        low=0,
        word="auto",
    )
    preload: bool = _option(
        "preload",
        False,
        "Import the application once, in a process that the workers are forked from: they share"
        " its memory and start at once.",
    )
    # As gunicorn's, but not as deadly: the successor comes first, and the requests may yet finish.
    worker_timeout: float = _option(
        "worker_timeout",
        30.0,
        "A worker that has taken no request for so long, since all its threads are inside of one"
        " or it does not run at all, is replaced; 0 never.",
        unit="seconds",
        low=0.0,
    )
    max_requests: int = _option(
        "max_requests",
        0,
        "Replace a worker after about so many requests (it is looked at once a second); 0 never.",
        low=0,
    )
    max_requests_jitter: int = _option(
        "max_requests_jitter",
        0,
        "Up to so many requests more, by chance, so that not all workers are replaced at once.",
        low=0,
    )
    max_rss: int = _option(
        "max_rss",
        0,
        "Replace a worker whose resident memory has grown beyond; 0 never.",
        unit="bytes",
        low=0,
    )

    @property
    def needs_supervisor(self) -> bool:
        """Whether serving in the process that was started would not do."""
        return bool(self.workers != 1 or self.preload or self.max_requests or self.max_rss)


@dataclass(frozen=True, slots=True)
class Log:
    """What is written about the requests."""

    access_log: str = _option(
        "access_log", "", "Write a line a request to this file; - is standard output. Off if empty."
    )
    format: str = _option(
        "log_format",
        "combined",
        "common, combined, json, or an Apache format string such as '%h \"%r\" %>s %b %D'.",
    )
    level: str = _option(
        "log_level",
        "info",
        "Least severe message that is logged.",
        choices=("debug", "info", "warning", "error", "critical"),
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the option table.

    `name` is the keyword of `serve` and `ServerConfig.from_options`; `flag` the command line's
    spelling. `group` and `attribute` say where the value stands in `ServerConfig`.
    """

    name: str
    group: str
    attribute: str
    type: type
    default: Any
    help: str
    unit: str
    low: float | None
    choices: tuple[str, ...]
    secret: bool = False
    word: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def multiple(self) -> bool:
        return isinstance(self.default, tuple)

    def convert(self, value: Any) -> Any:
        """`value`, as typed or as passed, in the option's type; `ConfigError` when it has none."""
        if self.multiple:
            values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            if not values:
                raise ConfigError(f"{self.name}: give at least one")
            if not all(type(item) in (str, int) for item in values):
                raise ConfigError(f"{self.name}: {value!r} is not text, or a sequence of texts")
            return tuple(str(item) for item in values)
        try:
            converted = self._convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            wanted = _KINDS[self.type] + (f" or {self.word}" if self.word else "")
            shown = "what was given" if self.secret else repr(value)
            raise ConfigError(f"{self.name}: {shown} is not {wanted}{self._in_unit()}") from error
        if self.low is not None and converted < self.low:
            raise ConfigError(f"{self.name}: {value!r} is below the least, {self.low:g}")
        if self.choices and converted not in (*self.choices, self.default):
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(self.choices)}")
        return converted

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            return _truth(value)
        if self.word and value == self.word:
            return 0
        return self._number(value) if self.type in (int, float) else self._text(value)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(value)
        return value

    def _number(self, value: Any) -> Any:
        if isinstance(value, bool):
            raise TypeError(value)
        if isinstance(value, str) and self.unit == "bytes":
            return parse_size(value)
        number = self.type(value)
        if number != number or number in (float("inf"), float("-inf")) or number != float(value):
            raise ValueError(value)
        return number

    def _in_unit(self) -> str:
        return f" of {self.unit}" if self.unit else ""


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_TRUTHS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        value = _TRUTHS.get(value.lower())
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def parse_size(text: str) -> int:
    """The bytes that `text` says: digits, and K, M or G for the powers of 1024. `ValueError`."""
    match = re.fullmatch(r"([0-9]+) ?([kmgKMG]?)(?:i?[bB])?", text.strip())
    if match is None:
        raise ValueError(text)
    power = " kmg".index(match[2].lower() or " ")
    return int(match[1]) * int(1024**power)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """All that a server may be told, immutable and safe to share between threads.

    Built from its groups, or flat by `from_options(threads=4, limit_body="10M")`.
    """

    bind: Bind = field(default_factory=Bind)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    workers: Workers = field(default_factory=Workers)
    asgi: ASGI = field(default_factory=ASGI)
    tls: Tls = field(default_factory=Tls)
    processes: Processes = field(default_factory=Processes)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        for option in OPTIONS:
            value = getattr(getattr(self, option.group), option.attribute)
            if option.convert(value) != value:
                raise ConfigError(
                    f"{option.name}: {value!r} is for from_options, which converts it"
                )

    @classmethod
    def from_options(cls, **options: Any) -> ServerConfig:
        """A configuration from flat options, the names of the option table.

        Raises `ConfigError` for a name that does not exist and a value that cannot be used.
        """
        groups: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            option = _BY_NAME.get(name)
            if option is None:
                raise ConfigError(f"{name}: there is no such option{_similar(name)}")
            groups.setdefault(option.group, {})[option.attribute] = option.convert(value)
        return cls(**{group: _GROUPS[group](**values) for group, values in groups.items()})

    def worker_count(self) -> int:
        """The number of processes that serve."""
        if self.processes.workers:
            return self.processes.workers
        return available_cores() if gil_enabled() else 1

    def threads(self) -> int:
        """The number of threads that run requests."""
        if self.workers.threads:
            return self.workers.threads
        return 8 if gil_enabled() else max(8, 2 * (os.cpu_count() or 1))


def changed(group: Any) -> list[str]:
    """The names of the options of `group`, such as a `Tls`, that are not at their defaults."""
    return [
        entry.metadata["name"]
        for entry in fields(group)
        if getattr(group, entry.name) != entry.default
    ]


def gil_enabled() -> bool:
    """Whether this interpreter runs one thread of Python code at a time."""
    check = getattr(sys, "_is_gil_enabled", None)
    return check is None or bool(check())


def _similar(name: str) -> str:
    import difflib  # a user's mistake may cost an import, a start need not

    close = difflib.get_close_matches(name, _BY_NAME, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _table() -> Iterator[Option]:
    for group, cls in _GROUPS.items():
        for entry in fields(cls):
            yield _row(group, entry)


def _row(group: str, entry: Field[Any]) -> Option:
    of = entry.metadata
    return Option(
        name=of["name"],
        group=group,
        attribute=entry.name,
        type=type(entry.default),
        default=entry.default,
        help=of["help"],
        unit=of["unit"],
        low=of["low"],
        choices=of["choices"],
        secret=of["secret"],
        word=of["word"],
    )


_GROUPS: dict[str, Any] = {
    "bind": Bind,
    "limits": Limits,
    "timeouts": Timeouts,
    "workers": Workers,
    "asgi": ASGI,
    "tls": Tls,
    "processes": Processes,
    "log": Log,
}

#: The option table, in the order of the settings page.
OPTIONS: tuple[Option, ...] = tuple(_table())

_BY_NAME = {option.name: option for option in OPTIONS}
