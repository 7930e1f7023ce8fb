"""Static files: which requests are theirs, and the answers.

StaticApp               in front of a SyncApp
StaticFiles.is_mine     a look at the path
StaticFiles.respond     the file that it names, or 404, 405
  Folders.find          which variants there are
  precondition, wanted_range
  FileBody              for `SendBuffer`, which sends it by sendfile
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ..http.response_head import TEXT_PLAIN
from ..messages import FileBody, Request, Response
from .conditions import accepted_codings, precondition, wanted_range
from .folders import Folders, Moved, Variant, is_outdated

if TYPE_CHECKING:
    from ..config.groups import Static
    from ..messages import SyncApp

_NOT_FOUND = Response(404, [TEXT_PLAIN], b"Not Found\n")
_NOT_ALLOWED = Response(405, [TEXT_PLAIN, ("Allow", "GET, HEAD")], b"Method Not Allowed\n")
_CHANGED = Response(412, [TEXT_PLAIN], b"Precondition Failed\n")
# What a 304 says of a file (RFC 9110, 15.4.5).
_KEPT = ("Cache-Control", "ETag", "Vary")
# Not to wait for a writer of what has become a pipe since it was looked at.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


class StaticFiles:
    """The files that `settings` name. Any thread may use it. Raises `ConfigError`."""

    def __init__(self, settings: Static) -> None:
        self._folders = Folders(settings)
        prefixes = {mount.prefix for mount in self._folders.mounts}
        #: Below / the application is asked for what is no file.
        self._everywhere = "/" in prefixes
        self._prefixes = tuple(sorted(prefixes - {"/"}))
        self._bare = frozenset(prefix[:-1] for prefix in self._prefixes)

    def is_mine(self, path: str) -> bool:
        """Whether a request for `path`, as it was sent, may be for a file; waits for nothing."""
        return self._everywhere or self._is_below(_decoded(path))

    def respond(self, method: str, path: str, fields: Mapping[str, str]) -> Response | None:
        """The answer to a request for `path`, as it was sent; None: it is the application's.

        `fields` are its header fields by their CGI names. May wait for the disk. The descriptor of
        a `FileBody` is the caller's.
        """
        url = _decoded(path)
        below = self._is_below(url)
        if method not in ("GET", "HEAD"):
            return _NOT_ALLOWED if below else None
        found = self._folders.find(url) if below or self._everywhere else None
        missing = _NOT_FOUND if below else None
        if found is None:
            return missing
        if isinstance(found, Moved):
            return Response(302, found.headers)
        itself = next(each for each in found if not each.coding)
        for variant in _understood(found, fields):
            try:
                return _answer(variant, itself, method, fields)
            except OSError:  # gone, or not to be read, since the folder was
                continue
        return missing

    def _is_below(self, url: str) -> bool:
        return url.startswith(self._prefixes) or url in self._bare


class StaticApp:
    """A `SyncApp`: the files, and `app` for everything else."""

    threadwell_interface = "sync"

    def __init__(self, app: SyncApp, files: StaticFiles) -> None:
        self._app = app
        self._files = files

    def __call__(self, request: Request) -> Response | None:
        head = request[0]
        if self._files.is_mine(head.path):
            response = self._files.respond(head.method, head.path, head.variables)
            if response is not None:
                return response
        return self._app(request)


def _decoded(path: str) -> str:
    """`path` with its percent-encoding undone, once; as file names are: UTF-8, or any octets."""
    if "%" not in path and path.isascii():
        return path
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "surrogateescape")


def _understood(variants: tuple[Variant, ...], fields: Mapping[str, str]) -> Iterator[Variant]:
    """The variants that the client understands, the smallest first, as far as the file itself."""
    accepted = accepted_codings(fields.get("HTTP_ACCEPT_ENCODING", ""))
    for variant in variants:
        if not variant.coding or variant.coding in accepted:
            yield variant
        if not variant.coding:
            return


def _answer(variant: Variant, itself: Variant, method: str, fields: Mapping[str, str]) -> Response:
    """Raises `OSError` when the file is not there any more, or may not be read, and when it has
    become older than the one that it was made of, `itself`."""
    fd = os.open(variant.path, _FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(variant.path)
        if variant is not itself and is_outdated(status, os.stat(itself.path)):
            raise FileNotFoundError(variant.path)
        # it may have been replaced since the folder was read, and what is said must hold
        variant = variant.with_status(status)
        response = _of_open_file(variant, fd, method, fields)
    except BaseException:
        os.close(fd)
        raise
    if not isinstance(response.body, FileBody):
        os.close(fd)
    return response


def _of_open_file(variant: Variant, fd: int, method: str, fields: Mapping[str, str]) -> Response:
    code = precondition(fields, variant.etag, variant.modified)
    if code == 304:
        return Response(304, [pair for pair in variant.headers if pair[0] in _KEPT])
    if code:
        return _CHANGED
    size = variant.size
    if method == "HEAD":
        return Response(200, [*variant.headers, ("Content-Length", str(size))])
    part = wanted_range(fields, size, variant.etag, variant.modified)
    if part is None:
        headers = [*variant.headers, ("Content-Length", str(size))]
        return Response(200, headers, FileBody(fd, 0, size))
    begin, length = part
    if not length:
        unsatisfied = [TEXT_PLAIN, ("Content-Range", f"bytes */{size}")]
        return Response(416, unsatisfied, b"Range Not Satisfiable\n")
    where = ("Content-Range", f"bytes {begin}-{begin + length - 1}/{size}")
    headers = [*variant.headers, where, ("Content-Length", str(length))]
    return Response(206, headers, FileBody(fd, begin, length))
