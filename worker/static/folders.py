"""Finds files with WhiteNoise, which also provides their types and cache headers.

`files` makes the responses.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote
from wsgiref.headers import Headers

from ..errors import ConfigError
from ..http.response_head import imf_fixdate

try:
    from whitenoise.base import WhiteNoise  # type: ignore[import-untyped]
    from whitenoise.responders import (  # type: ignore[import-untyped]
        IsDirectoryError,
        MissingFileError,
    )
except ImportError:
    raise ConfigError("static: whitenoise is missing; pip install whitenoise") from None

if TYPE_CHECKING:
    from ..config.groups import Static

log = logging.getLogger("threadwell")

_CODINGS = {".br": "br", ".gz": "gzip", ".zst": "zstd"}
# Names that begin with a dot are hidden, except for this one (RFC 8615).
_SHOWN = ".well-known"


class Mount(NamedTuple):
    """A folder, and the URL prefix of its files, which begins and ends with a slash."""

    prefix: str
    folder: str


def parse_mounts(settings: Static) -> list[Mount]:
    """Parse the folders of `settings`. Raises `ConfigError`."""
    return [_parse(text) for text in settings.mounts]


def _parse(text: str) -> Mount:
    prefix, equals, folder = text.partition("=")
    if not prefix.startswith("/") or not equals or not folder:
        raise ConfigError(f"static: {text!r} is not of the form /static=FOLDER")
    if not _is_canonical(prefix):
        raise ConfigError(f"static: {prefix!r} is not a plain path; write it as clients request it")
    path = os.path.abspath(folder)
    if os.path.isfile(path):
        raise ConfigError(f"static: {folder} is a file; give the folder that it is in")
    if not os.path.isdir(path):
        raise ConfigError(f"static: there is no folder {folder}; create it, or correct the path")
    if os.path.dirname(path) == path:
        raise ConfigError(
            f"static: {folder} is the root of the file system; give the folder to serve"
        )
    stripped = prefix.strip("/")
    return Mount(f"/{stripped}/" if stripped else "/", path)


def _is_canonical(prefix: str) -> bool:
    parts = prefix.strip("/").split("/")
    plain = not any(letter in prefix for letter in "\\\0%?#")
    return plain and (parts == [""] or not {"", ".", ".."} & set(parts))


def check_static(settings: Static) -> None:
    """Check `settings` without reading the folders. Raises `ConfigError`."""
    parse_mounts(settings)
    _pattern(settings)


def _pattern(settings: Static) -> re.Pattern[str] | None:
    try:
        return re.compile(settings.immutable) if settings.immutable else None
    except re.error as error:
        raise ConfigError(
            f"static_immutable: {settings.immutable!r} is not a regular expression: {error}"
        ) from None


@dataclass(frozen=True, slots=True)
class Variant:
    """A file as it is sent: the original, or a compressed file beside it.

    `coding` is empty for the original. `headers` has all headers but Content-Length; `modified` is
    in seconds since the epoch.
    """

    path: str
    coding: str
    common: tuple[tuple[str, str], ...]
    size: int
    mtime_ns: int
    etag: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls, path: str, coding: str, common: tuple[tuple[str, str], ...], status: os.stat_result
    ) -> Variant:
        """Make the variant at `path` with `status`; all variants have the headers `common`."""
        mtime, size = status.st_mtime_ns, status.st_size
        # each coding has its own tag: a client must not combine ranges of different codings
        etag = f'"{mtime:x}-{size:x}{"-" + coding if coding else ""}"'
        headers = [*common, ("Last-Modified", imf_fixdate(mtime // 10**9)), ("ETag", etag)]
        if coding:
            headers.append(("Content-Encoding", coding))
        return cls(path, coding, common, size, mtime, etag, tuple(headers))

    def with_status(self, status: os.stat_result) -> Variant:
        """Return this variant, or a new one if the file has changed according to `status`."""
        if (status.st_mtime_ns, status.st_size) == (self.mtime_ns, self.size):
            return self
        return Variant.of(self.path, self.coding, self.common, status)

    @property
    def modified(self) -> int:
        return self.mtime_ns // 10**9


@dataclass(frozen=True, slots=True)
class Moved:
    """A redirect; `headers` has the Location."""

    headers: tuple[tuple[str, str], ...]


#: The variants of a file, the smallest first.
Found = tuple[Variant, ...] | Moved


class Folders(WhiteNoise):  # type: ignore[misc]
    """The files of all mounts. Any thread may use it once it is made.

    With `refresh` files are looked up at each request, else the folders are read once, here. Raises
    `ConfigError`.
    """

    def __init__(self, settings: Static) -> None:
        immutable = _pattern(settings)
        super().__init__(
            None,
            autorefresh=settings.refresh,
            max_age=settings.max_age,
            allow_all_origins=False,
            index_file=settings.index or None,
            immutable_file_test=lambda _path, url: bool(immutable and immutable.search(url)),
        )
        # later folders take precedence over earlier ones, and the longest prefix must win
        self.mounts = sorted(parse_mounts(settings), key=lambda mount: len(mount.prefix))
        for mount in self.mounts:
            self.add_files(mount.folder, mount.prefix)

    def find(self, url: str) -> Found | None:
        """Return what is at the decoded path `url`. Blocks on the disk only with `refresh`."""
        if not self.autorefresh:
            found = self.files.get(url)
        elif "\0" in url or (
            os.name == "nt" and ":" in url
        ):  # a drive, or an alternate data stream
            return None
        else:
            try:
                found = self.find_file(url)
            except (OSError, ValueError):
                return None
        return found  # type: ignore[no-any-return]

    # ---- Methods that WhiteNoise calls -----------------------------------------------------

    def redirect(self, from_url: str, to_url: str) -> Moved:
        # WhiteNoise's own fails on names that are not UTF-8
        name = "./" if from_url.startswith(to_url) else from_url.rpartition("/")[2] + "/"
        where = [("Location", quote(os.fsencode(name)))]
        if self.max_age is not None:
            where.append(("Cache-Control", f"max-age={self.max_age}, public"))
        return Moved(tuple(where))

    @staticmethod
    def is_compressed_variant(path: str, stat_cache: Any = None) -> bool:
        stem, suffix = os.path.splitext(path)
        if suffix not in _CODINGS:
            return False
        return os.path.isfile(stem) if stat_cache is None else stem in stat_cache

    def candidate_paths_for_url(self, url: str) -> Iterator[str]:
        for root, prefix in self.directories:
            if url.startswith(prefix) and not _is_hidden(url[len(prefix) :]):
                path = os.path.join(root, url[len(prefix) :])
                if self.path_is_child_of(path, root):
                    yield path

    def update_files_dictionary(self, root: str, prefix: str) -> None:
        files = dict(_walk(root, ()))
        for path in files:
            url = prefix + path[len(root) :].replace(os.sep, "/")
            self.add_file_to_dictionary(url, path, stat_cache=files)

    def get_static_file(self, path: str, url: str, stat_cache: Any = None) -> tuple[Variant, ...]:
        status = _status(path, stat_cache)
        if status is None:
            if os.path.isdir(path):
                raise IsDirectoryError(path)
            raise MissingFileError(path)
        compressed = [
            (path + suffix, coding, other)
            for suffix, coding in _CODINGS.items()
            if (other := _status(path + suffix, stat_cache)) is not None
            and not is_outdated(other, status)
        ]
        headers = Headers([])
        self.add_mime_headers(headers, path, url)
        self.add_cache_headers(headers, path, url)
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Accept-Ranges"] = "bytes"
        if compressed:
            headers["Vary"] = "Accept-Encoding"
        common = tuple(headers.items())
        variants = [Variant.of(path, "", common, status)]
        variants += [Variant.of(name, coding, common, other) for name, coding, other in compressed]
        return tuple(sorted(variants, key=lambda variant: (variant.size, variant.coding)))


def _status(path: str, known: dict[str, os.stat_result] | None) -> os.stat_result | None:
    """Return the status of the regular file at `path`; None without one."""
    if known is not None:
        return known.get(path)
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def is_outdated(compressed: os.stat_result, original: os.stat_result) -> bool:
    """Whether the compressed file is older than the original."""
    return int(compressed.st_mtime) < int(original.st_mtime)


def _is_hidden(path: str) -> bool:
    """Whether a part of `path`, relative to its folder, is hidden."""
    return any(part.startswith(".") and part != _SHOWN for part in path.split("/"))


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Iterate over the regular files in `folder` and below, with their status.

    Links are followed, because `collectstatic --link` makes them, but no circles: `above` has the
    device and inode of the parent folders.
    """
    try:
        here = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        log.warning("No files of %s are served: %s", folder, error.strerror)
        return
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return
    for entry in entries:
        if _is_hidden(entry.name):
            continue
        try:
            status = entry.stat()
        except OSError:  # a broken link
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(entry.path, (*above, identity))
        elif stat.S_ISREG(status.st_mode):
            yield entry.path, status
