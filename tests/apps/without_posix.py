"""The command where there are none of the things that Windows has not.

    python without_posix.py

First come mistakes, whose exit codes are printed; then it serves until SIGINT.
"""

from __future__ import annotations

import concurrent.futures
import importlib.abc
import logging.handlers
import mmap
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from typing import Any

import click.shell_completion

# what has looked where it is may go on as it is
_ = (concurrent.futures, logging.handlers, mmap, ssl, subprocess, tempfile, click)
sysconfig.get_config_vars()

_MODULES = {"fcntl", "grp", "pwd", "resource", "syslog", "termios", "uvloop"}
_NAMES: list[tuple[Any, str]] = [
    (
        os,
        "fork register_at_fork sendfile geteuid getuid setuid setgid initgroups setgroups chown"
        " fchmod fchown sched_getaffinity waitid WNOHANG killpg setsid pread",
    ),
    (select, "epoll kqueue poll"),
    (signal, "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGCHLD SIGTTIN SIGTTOU SIGPIPE"),
    (signal, "pthread_sigmask pthread_kill sigwait setitimer"),
    (socket, "AF_UNIX SO_REUSEPORT MSG_DONTWAIT MSG_NOSIGNAL MSG_MORE send_fds recv_fds"),
]


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name in _MODULES:
            raise ModuleNotFoundError(name, name=name)


def pair(*_: Any) -> tuple[socket.socket, socket.socket]:
    """As Python makes one on Windows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def take_away() -> None:
    for name in _MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Missing())
    for module, names in _NAMES:
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    socket.socketpair = pair  # type: ignore[assignment]
    sys.platform = "win32"


def main() -> int:
    take_away()
    from threadwell.cli import main as command

    for wrong in (
        ["--workers", "2"],
        ["--bind", "unix:x"],
        ["--user", "me"],
        ["--reuse-port"],
        ["--access-log", "syslog:"],
    ):
        print(command(["app", "--bind", "127.0.0.1:0", *wrong]), flush=True)
    right = ["--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0", "--pid-file", "pid"]
    return command(["app", *right, "--access-log", "log"])


if __name__ == "__main__":
    sys.exit(main())
