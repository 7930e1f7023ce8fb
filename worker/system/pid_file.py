"""A file with the number of the process that is to be sent signals."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ..errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows, where nobody is sent signals
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Write this process into the file `path`, and remove it in the end; nothing if it is empty.

    Enter it when the sockets are bound. A file that a dead process left is taken over. Whether one
    is alive its lock tells, for its number may be another's by now; a fork does not inherit it.
    Raises `ConfigError`.
    """
    if not path:
        yield
        return
    fd = _claim(path)
    owner = os.getpid()
    try:
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % owner)
        yield
    finally:
        if os.getpid() == owner:
            with contextlib.suppress(OSError):
                if _is_at(fd, path):
                    os.unlink(path)
        os.close(fd)
        if os.name == "nt":  # where no open file can be removed
            with contextlib.suppress(OSError):
                os.unlink(path)


def _claim(path: str) -> int:
    """A descriptor of the file at `path`, which is ours now."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise ConfigError(f"pid_file: {path} cannot be written: {error.strerror}") from None
        try:
            _lock(fd, path)
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # whoever had it removed it meanwhile


def _lock(fd: int, path: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return  # a file system without locks
        number = os.read(fd, 20).decode("ascii", "replace").strip() or "another"
        raise ConfigError(
            f"pid_file: {path} is that of process {number}, which runs; stop it, or give another"
            " file"
        ) from None


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
