"""The pid file: the id of the process that receives signals."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from ..errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows, which has no such signals
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Write the id of this process to the file `path`, and remove the file at the end.

    Does nothing if `path` is empty. Enter it once the sockets are bound. A file that a dead process
    left behind is overwritten. The lock on the file shows whether its process is alive: the id may
    belong to another process by now, and a forked child does not inherit the lock. Raises
    `ConfigError` if the file cannot be written, or if its process is alive.

    The folder may be writable for others, and this process may be root. So a link is not followed,
    and what is no pid file of this user's, or of root's, is left alone.
    """
    if not path:
        yield
        return
    fd = _claim(path)
    owner = os.getpid()
    try:
        try:
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % owner)
        except OSError as error:
            raise ConfigError(f"pid_file: {path} cannot be written: {error.strerror}") from None
        yield
    finally:
        if os.getpid() == owner:
            with contextlib.suppress(OSError):
                if _is_at(fd, path):
                    os.unlink(path)
        os.close(fd)
        if os.name == "nt":  # an open file cannot be removed there
            with contextlib.suppress(OSError):
                os.unlink(path)


def _claim(path: str) -> int:
    """Return a descriptor of the file at `path`, locked by this process."""
    # a FIFO without O_NONBLOCK would be waited for; Windows has none of these flags
    names = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
    flags = sum(getattr(os, name, 0) for name in names) | os.O_RDWR | os.O_CREAT
    while True:
        try:
            fd = os.open(path, flags, 0o644)
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise ConfigError(f"pid_file: {path} cannot be written: {why}") from None
        try:
            _check_ours(fd, path)
            _lock(fd, path)
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its owner removed the file meanwhile


def _check_ours(fd: int, path: str) -> None:
    """Raises `ConfigError` if the file is not one that this server may have written."""
    status = os.fstat(fd)
    why = ""
    if not stat.S_ISREG(status.st_mode):
        why = "it is not a regular file"
    elif status.st_nlink > 1:
        why = "it has another name"
    elif hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid()):
        why = "it belongs to another user"
    elif not (text := os.read(fd, 32).strip()).isdigit() and text:
        why = "it has something else in it"
    else:
        os.lseek(fd, 0, os.SEEK_SET)
    if why:
        raise ConfigError(f"pid_file: {path} is not overwritten, because {why}; give another file")


def _lock(fd: int, path: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return  # the file system has no locks
        number = os.read(fd, 20).decode("ascii", "replace").strip() or "another"
        raise ConfigError(
            f"pid_file: {path} belongs to process {number}, which is running; stop it, or give"
            " another file"
        ) from None


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
