"""`ServerConfig`, the frozen and validated settings of a server, and the option table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Unpack

from ..errors import ConfigError
from ..system.resources import available_cores
from ..system.similar import did_you_mean
from .groups import (
    ASGI,
    Bind,
    Control,
    Http2,
    Limits,
    Log,
    Metrics,
    Option,
    Processes,
    Proxies,
    Responses,
    Static,
    Threads,
    Timeouts,
    Tls,
)

if TYPE_CHECKING:
    from .options import Options


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """All settings of a server: immutable, and safe to share between threads.

    It is built from its groups, or from flat options: `from_options(threads=4, limit_body="10M")`.
    """

    bind: Bind = field(default_factory=Bind)
    threads: Threads = field(default_factory=Threads)
    processes: Processes = field(default_factory=Processes)
    asgi: ASGI = field(default_factory=ASGI)
    tls: Tls = field(default_factory=Tls)
    proxies: Proxies = field(default_factory=Proxies)
    static: Static = field(default_factory=Static)
    http2: Http2 = field(default_factory=Http2)
    responses: Responses = field(default_factory=Responses)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    control: Control = field(default_factory=Control)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        for option in OPTIONS:
            value = getattr(getattr(self, option.group), option.attribute)
            if option.convert(value) != value:
                raise ConfigError(
                    f"{option.name}: {value!r} is for from_options, which converts it"
                )

    @classmethod
    def from_options(cls, **options: Unpack[Options]) -> ServerConfig:
        """Return the configuration that `options` describe, by the names of the option table.

        Raises `ConfigError` for an unknown name or an invalid value.
        """
        groups: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            option = _BY_NAME.get(name)
            if option is None:
                raise ConfigError(f"{name}: there is no such option{did_you_mean(name, _BY_NAME)}")
            groups.setdefault(option.group, {})[option.attribute] = option.convert(value)
        return cls(**{group: _GROUPS[group](**values) for group, values in groups.items()})

    def worker_count(self) -> int:
        """Return the number of worker processes."""
        if self.processes.workers:
            return self.processes.workers
        return available_cores() if gil_enabled() else 1

    def thread_count(self) -> int:
        """Return the number of threads that run requests."""
        if self.threads.count:
            return self.threads.count
        return 8 if gil_enabled() else max(8, 2 * available_cores())

    def tracks_requests(self) -> bool:
        """Return whether each thread and loop notes the request that it runs."""
        looks = self.log.slow_request or self.processes.request_timeout
        return bool(self.control.socket or looks)


def changed(group: Any) -> list[str]:
    """Return the names of the options of `group`, such as a `Tls`, that differ from the default."""
    return [
        entry.metadata["name"]
        for entry in fields(group)
        if getattr(group, entry.name) != entry.default
    ]


def gil_enabled() -> bool:
    """Whether the GIL is enabled: only one thread runs Python code at a time."""
    check = getattr(sys, "_is_gil_enabled", None)
    return check is None or bool(check())


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
        high=of["high"],
        choices=of["choices"],
        secret=of["secret"],
        word=of["word"],
    )


_GROUPS: dict[str, Any] = {entry.name: entry.default_factory for entry in fields(ServerConfig)}

#: The headings of the groups, for --help and the settings page.
TITLES = {
    "bind": "Where",
    "threads": "Threads",
    "processes": "Processes",
    "asgi": "ASGI",
    "tls": "TLS",
    "proxies": "Proxies",
    "static": "Static files",
    "http2": "HTTP/2",
    "responses": "Responses",
    "log": "Logs",
    "metrics": "Metrics",
    "control": "Control",
    "limits": "Limits",
    "timeouts": "Timeouts",
}

#: The option table, in the order of the settings page.
OPTIONS: tuple[Option, ...] = tuple(_table())

_BY_NAME = {option.name: option for option in OPTIONS}
