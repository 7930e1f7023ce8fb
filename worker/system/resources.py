"""Cores, memory and descriptors of this process."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def require_descriptors(count: int) -> None:
    """Raise `OSError` unless this process can open `count` more descriptors."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise OSError(error.errno, error.strerror) from None  # the null device is not to blame
    finally:
        for descriptor in opened:
            os.close(descriptor)


def available_cores() -> int:
    """Return how many whole cores this process may use, at least 1.

    CPU affinity and the quota of the control group are taken into account.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on macOS and Windows
        cores = os.cpu_count() or 1
    quota = _quota(_CGROUPS, Path("/proc/self/cgroup"))
    return max(1, min(cores, int(quota)) if quota else cores)


def _quota(root: Path, membership: Path) -> float:
    """Return the cores that the control group and its ancestors allow; 0 for no limit."""
    quotas = []
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        # in a container the path may be the host's, and only the root is visible
        group = base / path.lstrip("/")
        folders = [group, *group.parents]
        quotas += [_bound(each) for each in folders if each == base or base in each.parents]
    return min(filter(None, quotas), default=0)


def _bound(folder: Path) -> float:
    with contextlib.suppress(OSError, ValueError):  # version 2
        quota, period = (folder / "cpu.max").read_text("ascii").split()
        return 0 if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):  # version 1
        quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
        period = (folder / "cpu.cfs_period_us").read_text("ascii")
        return max(int(quota), 0) / int(period)
    return 0


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; the peak on systems other than Linux."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def connection_limit(asked: int) -> int:
    """How many connections may be open: as asked, or what the file descriptors allow."""
    try:
        import resource
    except ImportError:
        return min(asked or 500, 500)  # Windows' select takes 512, and fails of one more
    if asked:
        return asked
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < 0:  # no limit
        return 2**20
    # the application needs descriptors too: a quarter, up to 256
    return max(allowed - min(256, allowed // 4), 1)
