"""`--cert adhoc`: a certificate for development, made up by trustme.

A browser should have to be told once, and not after every restart. So what is made is kept in the
user's cache folder for a year: the server's certificate, its key, and the certificate of the
authority that signed it. The authority's own key is thrown away. Whoever trusts that authority
trusts this one certificate and nothing else, even if the folder is stolen.

Where there is no folder that is the user's alone, the certificate is for this run only.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    import ssl

_NAMES = ("localhost", "127.0.0.1", "::1")
# Apple's systems refuse certificates that are valid for longer than 825 days.
_VALID_DAYS = 397
_KEPT_DAYS = 365
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_HOST = re.compile(r"[0-9A-Za-z]([-.0-9A-Za-z]*[0-9A-Za-z])?|[0-9A-Fa-f:.]+")

# What was used last, for each set of names. A process that is forked later has it too, and it may
# be of a user who has no such folder: all workers must show the same certificate.
_this_run: dict[tuple[str, ...], bytes] = {}


def load(context: ssl.SSLContext, hosts: Iterable[str] = ()) -> None:
    """Give `context` a certificate for localhost and `hosts`.

    Raises `ConfigError` when trustme is needed and not there.
    """
    names = _names(hosts)
    folder = _folder()
    if folder is not None and _load_kept(context, folder, names):
        return
    if folder is not None:
        with contextlib.suppress(OSError):
            _replace(folder / f"{_stem(names)}.pem", _make(names))
            if _load_kept(context, folder, names):
                return
    key = tuple(names)
    pem = _this_run.get(key) or _this_run.setdefault(key, _make(names))
    # `ssl` takes it from a file only; mkstemp's are its user's alone
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


def authority_file(hosts: Iterable[str] = ()) -> Path | None:
    """Where the certificate to be trusted is; None if it was made for this run only."""
    folder = _folder()
    if folder is None:
        return None
    path = folder / f"{_stem(_names(hosts))}-ca.pem"
    return path if path.exists() else None


def _names(hosts: Iterable[str]) -> list[str]:
    """What the certificate is for: those that come in every case, then those of `hosts`."""
    import socket

    everywhere = {"0.0.0.0", "::"}
    named: list[str] = []
    for host in hosts:
        name = socket.gethostname() if host in everywhere else host.partition("%")[0]
        if _HOST.fullmatch(name) and name not in (*_NAMES, *named):
            named.append(name)
    return [*_NAMES, *sorted(named)]


def _make(names: Sequence[str]) -> bytes:
    """In PEM: the key and the certificate of the server, and the authority's certificate."""
    try:
        import trustme
    except ImportError:
        raise ConfigError("cert: adhoc needs trustme; pip install trustme") from None
    now = datetime.datetime.now(datetime.UTC)
    authority = trustme.CA(organization_name="threadwell --cert adhoc", path_length=0)
    facts: dict[str, Any] = {
        "common_name": names[0],
        "organization_name": "threadwell --cert adhoc",
        "not_before": now - datetime.timedelta(days=1),
        "not_after": now + datetime.timedelta(days=_VALID_DAYS),
    }
    try:
        leaf = authority.issue_cert(*names, **facts)
    except UnicodeError:  # machines have names that no certificate can have
        leaf = authority.issue_cert(*_NAMES, **facts)
    return leaf.private_key_and_cert_chain_pem.bytes() + authority.cert_pem.bytes()


# ---- The folder ----------------------------------------------------------------------------


def _folder() -> Path | None:
    """The cache folder, there and nobody else's; None when there can be none."""
    try:
        base = _cache()
        if base.exists() and not _is_ours(base.resolve()):  # another user's home, as with sudo
            return None
        folder = base / "threadwell"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if _is_ours(folder) else None
    except (OSError, RuntimeError):  # there is no home
        return None


def _cache() -> Path:
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if os.path.isabs(named) else Path.home() / ".cache"


def _is_ours(path: Path, others: int = 0o022) -> bool:
    """Whether this user owns `path`, and nobody else has one of the rights `others`."""
    if os.name == "nt":
        return True  # what is in the profile is the user's
    status = path.lstat()
    return (
        status.st_uid == os.geteuid()
        and not stat.S_ISLNK(status.st_mode)
        and not status.st_mode & others
    )


def _stem(names: Sequence[str]) -> str:
    extra = ",".join(names[len(_NAMES) :])
    digest = hashlib.sha256(extra.encode()).hexdigest()[:12]
    return f"localhost-{digest}" if extra else "localhost"


def _load_kept(context: ssl.SSLContext, folder: Path, names: Sequence[str]) -> bool:
    """Take what is kept for `names`, if there is something and it is to be used."""
    import ssl

    path = folder / f"{_stem(names)}.pem"
    try:
        if not _is_ours(path, 0o077) or time.time() - path.stat().st_mtime > _KEPT_DAYS * 86400:
            return False
        context.load_cert_chain(path)
        # the last one in it is the authority's: so the two files cannot be of two makings
        pem = path.read_bytes()
        authority = _BEGIN + pem.rpartition(_BEGIN)[2]
        public = path.with_name(f"{path.stem}-ca.pem")
        if not public.exists() or public.read_bytes() != authority:
            _replace(public, authority)
        _this_run[tuple(names)] = pem
    except (OSError, ssl.SSLError):  # it is not there, or somebody has edited it
        return False
    return True


def _replace(path: Path, data: bytes) -> None:
    """Write `path`, whole or not at all, for this user only. Raises `OSError`."""
    descriptor, made = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise
