"""The targets of the access log: a file, a pipe, or syslog.

Log lines of several threads and processes never mix: each write has complete lines only, and no
more than the kernel writes atomically.

    file      opened with O_APPEND: each write(2) is atomic, whatever its size
    pipe      at most PIPE_BUF octets at once (pipe(7)); the fields of longer lines are cut;
              nothing waits for its reader without a limit
    syslog    one message for each log line
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import socket
import stat
import sys
import time
from abc import ABC, abstractmethod
from typing import NamedTuple

from ..errors import ConfigError
from ..http.response_head import MONTHS
from ..system.readiness import has_room
from ..system.standard_streams import duplicate

log = logging.getLogger("threadwell")

_PIPE_BUF = getattr(select, "PIPE_BUF", 512)
# Approximate number of octets in one write to a file.
_FILE_BLOCK = 256 * 1024
# Seconds to wait for the reader of a pipe, or for a syslog.
_WRITE_TIMEOUT = 2.0
# Seconds until an unreachable syslog, or a pipe without a reader, is tried again.
_RETRY_INTERVAL = 1.0

_ACCEPTED_FORMS = "syslog:, syslog:/PATH, syslog:udp://HOST:PORT and syslog:tcp://HOST:PORT"
_REMOTE = re.compile(
    r"(?P<kind>udp|tcp)://(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/\s?]+))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_PORT = 514
#: RFC 5424, 6.2.1.
_FACILITIES = {
    name: number
    for number, name in enumerate(
        "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split()
    )
} | {f"local{number}": 16 + number for number in range(8)}
_INFORMATIONAL = 6
# The size of a message that receivers should accept (RFC 5424, 6.1), less the header before the log
# line, mainly the host name; and the size that rsyslog and journald accept by default.
_LONGEST_DATAGRAM = 2048 - 350
_LONGEST_MESSAGE = 8192


class Target(ABC):
    """A place for log lines. Used by one thread at a time; `close` is the last call."""

    #: Maximum length of a log line with its newline; 0 for no limit.
    longest = 0
    #: The error of the last `write`, None if it succeeded.
    last_error: OSError | None = None

    @abstractmethod
    def write(self, lines: list[str]) -> int:
        """Write `lines`, which are ASCII; returns how many could not be written."""

    @abstractmethod
    def reopen(self) -> None:
        """Reopen the file, after a log rotation has renamed it.

        Raises `OSError`, and keeps the old file then.
        """

    @abstractmethod
    def close(self) -> None: ...


def open_target(text: str) -> Target:
    """Open the target that the option `access_log` names. Raises `ConfigError`."""
    try:
        if text == "-":
            if sys.stdout is None:  # the parent process closed it
                raise OSError(errno.EBADF, "standard output is closed")
            return FileTarget(duplicate(sys.stdout.fileno()))
        if (address := parse_syslog(text)) is not None:
            return _open_syslog(address)
        path = os.path.abspath(text)
        descriptor = _open(path)
        if descriptor < 0:
            log.warning("The access log %s is a pipe that no program reads yet", path)
        return FileTarget(descriptor, path)
    except OSError as error:
        raise ConfigError(f"access_log: {text}: {error.strerror or error}") from error


def _open(path: str) -> int:
    """Open the file or pipe at `path`; returns -1 if it is a pipe that no program reads yet."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # a pipe without a reader would be waited for (fifo(7))
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags, 0o640)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):
            return -1
        raise


# ---- Files and pipes -----------------------------------------------------------------------


class FileTarget(Target):
    """A file or a pipe. `path` is empty for a descriptor that cannot be reopened.

    `descriptor` is negative for a pipe that no program reads yet; it is opened later.
    """

    def __init__(self, descriptor: int, path: str = "") -> None:
        self._path = path
        self._retry_at = 0.0
        self._adopt(descriptor)

    def _adopt(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._regular = descriptor >= 0 and stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._block = _FILE_BLOCK if self._regular else _PIPE_BUF
        self.longest = 0 if self._regular else _PIPE_BUF
        #: The last log line was written in part, because the disk was full.
        self._partial_line = False

    def write(self, lines: list[str]) -> int:
        lost = 0
        self.last_error = None
        if self._descriptor < 0 and not self._open_pipe():
            return len(lines)
        patience = _WRITE_TIMEOUT
        at = 0
        whole = "\n".join(lines) + "\n"
        while at < len(lines):
            first = at
            if len(whole) <= self._block:  # as it mostly is
                at, text = len(lines), whole
            else:
                at = self._fit(lines, at)
                text = "\n".join(lines[first:at]) + "\n"
            try:
                self._write(text.encode("ascii", "replace"), patience)
            except OSError as error:
                self.last_error = error
                lost += at - first
                if isinstance(error, BlockingIOError):
                    patience = 0.0  # the reader has stopped: do not wait again for the others
        return lost

    def _fit(self, lines: list[str], at: int) -> int:
        """The end of what one write has of `lines` from `at` on: a line at least."""
        size = len(lines[at]) + 1
        at += 1
        while at < len(lines) and size + len(lines[at]) + 1 <= self._block:
            size += len(lines[at]) + 1
            at += 1
        return at

    def _open_pipe(self) -> bool:
        """Open the pipe if a program reads it by now; tried once a second."""
        self.last_error = OSError(errno.ENXIO, "no program reads the pipe")
        if time.monotonic() < self._retry_at:
            return False
        self._retry_at = time.monotonic() + _RETRY_INTERVAL
        try:
            descriptor = _open(self._path)
        except OSError as error:
            self.last_error = error
            return False
        if descriptor < 0:
            return False
        self._adopt(descriptor)
        self.last_error = None
        return True

    def _write(self, data: bytes, patience: float) -> None:
        view = memoryview(b"\n" + data if self._partial_line else data)
        whole = len(view)
        try:
            while view:
                if not self._regular and not has_room(self._descriptor, patience):
                    raise BlockingIOError(errno.EAGAIN, "no program reads the pipe")
                # another writer may have filled the pipe meanwhile
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self._descriptor, view) :]
        except OSError:
            self._partial_line = self._partial_line or 0 < len(view) < whole
            raise
        self._partial_line = False

    def reopen(self) -> None:
        if not self._path:
            return
        fresh = _open(self._path)
        self.close()
        self._adopt(fresh)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


# ---- Syslog --------------------------------------------------------------------------------


class SyslogAddress(NamedTuple):
    """The address of a syslog: `kind` is unix, udp or tcp; `host` is the path of a unix socket."""

    kind: str
    host: str
    port: int
    facility: int


def parse_syslog(text: str) -> SyslogAddress | None:
    """Parse `syslog:...`; None if `text` does not begin so. Raises `ConfigError`."""
    if not text.startswith("syslog:"):
        return None
    place, _, query = text.removeprefix("syslog:").partition("?")
    key, _, name = query.partition("=")
    if query and (key != "facility" or name not in _FACILITIES):
        raise ConfigError(
            f"access_log: {text!r}: after the ? comes facility= and one of {', '.join(_FACILITIES)}"
        )
    facility = _FACILITIES[name or "daemon"]
    if not place or place.startswith("/"):
        default = "/var/run/syslog" if sys.platform == "darwin" else "/dev/log"
        return SyslogAddress("unix", place or default, 0, facility)
    match = _REMOTE.fullmatch(place)
    if match is None or int(match["port"] or _PORT) > 65535:
        raise ConfigError(
            f"access_log: {text!r} is not a syslog address; {_ACCEPTED_FORMS} are understood"
        )
    host = match["ipv6"] or match["host"]
    return SyslogAddress(match["kind"], host, int(match["port"] or _PORT), facility)


def _open_syslog(address: SyslogAddress) -> Target:
    if address.kind == "unix":
        if not hasattr(socket, "AF_UNIX"):
            raise ConfigError("access_log: this system has no unix sockets; name a host")
        target: Syslog = LocalSyslog(address)
    else:
        target = UDPSyslog(address) if address.kind == "udp" else TCPSyslog(address)
    try:
        target.connect()
    except OSError as error:
        if address.kind != "tcp" or isinstance(error, socket.gaierror):
            raise
        log.warning("The syslog at %s cannot be reached yet: %s", address.host, error)
    return target


class Syslog(Target):
    """A connection to a syslog, which is opened again when it fails."""

    def __init__(self, address: SyslogAddress) -> None:
        self._address = address
        self._priority = address.facility * 8 + _INFORMATIONAL
        self._sock: socket.socket | None = None
        self._retry_at = 0.0

    @abstractmethod
    def connect(self) -> None:
        """Open the connection. Raises `OSError`."""

    @abstractmethod
    def send(self, lines: list[str]) -> int:
        """Send `lines`; returns how many were lost.

        Raises `OSError` if the connection failed. `lines` then has those to send again.
        """

    def write(self, lines: list[str]) -> int:
        self.last_error = None
        now = time.monotonic()
        if self._sock is None and now < self._retry_at:
            self.last_error = ConnectionError("it could not be reached just now")
            return len(lines)
        for _ in range(2):
            try:
                if self._sock is None:
                    self.connect()
                return self.send(lines)
            except OSError as error:  # the syslog may have been restarted
                self.last_error = error
                self.close()
        self._retry_at = now + _RETRY_INTERVAL
        return len(lines)

    def reopen(self) -> None:
        """Do nothing: a syslog rotates its own files."""

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _adopt(self, sock: socket.socket, address: object) -> None:
        try:
            sock.settimeout(_WRITE_TIMEOUT)
            sock.connect(address)  # type: ignore[arg-type]
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def _resolve(self, kind: socket.SocketKind) -> None:
        """Connect to the first address of the host that accepts. Raises `OSError`."""
        address = self._address
        error: OSError | None = None
        found = socket.getaddrinfo(address.host, address.port, type=kind)
        for family, _, protocol, _, name in found:
            try:
                self._adopt(socket.socket(family, kind, protocol), name)
                return
            except OSError as raised:
                error = raised
        assert error is not None
        raise error

    def _message(self, line: str) -> bytes:
        """Format a message (RFC 5424, 6): version, time, host, program, process, kind, no data."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return (
            f"<{self._priority}>1 {stamp}.{int(now % 1 * 1e6):06}Z {_host_name()} threadwell"
            f" {os.getpid()} access - {line}"
        ).encode("ascii", "replace")


def _host_name() -> str:
    return re.sub(r"[^\x21-\x7e]", "", socket.gethostname())[:255] or "-"


class LocalSyslog(Syslog):
    """The local syslog, in the format of syslog(3), which journald and rsyslog expect there."""

    longest = _LONGEST_MESSAGE

    def connect(self) -> None:
        path = self._address.host
        try:
            self._adopt(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), path)
            self._end = b""
        except OSError as error:
            if isinstance(error, (FileNotFoundError, ConnectionRefusedError, PermissionError)):
                raise
            # as syslog(3) does, for a syslog that listens on a stream socket
            self._adopt(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)
            self._end = b"\0"

    def send(self, lines: list[str]) -> int:
        assert self._sock is not None
        now = time.localtime()
        stamp = f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        lead = f"<{self._priority}>{stamp} threadwell[{os.getpid()}]: "
        for number, line in enumerate(lines):
            try:
                self._sock.sendall((lead + line).encode("ascii", "replace") + self._end)
            except OSError:
                # the failed line is sent again on a new connection, those before it are not
                del lines[:number]
                raise
        return 0


class UDPSyslog(Syslog):
    """One datagram for each log line (RFC 5426). Losses in the network are not detected."""

    longest = _LONGEST_DATAGRAM

    def connect(self) -> None:
        self._resolve(socket.SOCK_DGRAM)

    def send(self, lines: list[str]) -> int:
        assert self._sock is not None
        lost = 0
        for line in lines:
            try:
                self._sock.send(self._message(line))
            except ConnectionRefusedError as error:  # reported for an earlier datagram
                self.last_error = error
                lost += 1
        return lost


class TCPSyslog(Syslog):
    """Messages over TCP with octet counting (RFC 6587, 3.4.1)."""

    longest = _LONGEST_MESSAGE

    def connect(self) -> None:
        self._resolve(socket.SOCK_STREAM)

    def send(self, lines: list[str]) -> int:
        assert self._sock is not None
        messages = [self._message(line) for line in lines]
        self._sock.sendall(b"".join([b"%d %b" % (len(each), each) for each in messages]))
        return 0
