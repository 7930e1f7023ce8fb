"""Static files: which requests they answer, and how.

StaticApp               wraps a SyncApp
StaticFiles.may_serve     decides by the path
StaticFiles.respond     the file, or 404 or 405
  Folders.find          the variants of the file
  precondition, wanted_range
  FileBody              `SendBuffer` sends it with sendfile
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ..http.response_body import read_some
from ..http.response_head import TEXT_PLAIN
from ..messages import FileBody, Request, Response
from .conditions import CONDITIONAL, accepted_codings, precondition, wanted_range
from .folders import Folders, Moved, Variant, is_outdated

if TYPE_CHECKING:
    from ..config.groups import Static
    from ..messages import SyncApp

_NOT_FOUND = Response(404, [TEXT_PLAIN], b"Not Found\n")
_NOT_ALLOWED = Response(405, [TEXT_PLAIN, ("Allow", "GET, HEAD")], b"Method Not Allowed\n")
_PRECONDITION_FAILED = Response(412, [TEXT_PLAIN], b"Precondition Failed\n")
# The fields that a 304 has (RFC 9110, 15.4.5).
_NOT_MODIFIED_FIELDS = ("Cache-Control", "ETag", "Vary")
# O_NONBLOCK: opening does not block if the file has been replaced by a named pipe.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


# A body up to this size is read, and sent with its head by one system call. A larger one is left to
# sendfile, which does not copy it. Over HTTP/2 it may have to wait for the client's windows, which
# takes memory for octets, and none for a file.
_MOST_READ, _MOST_READ_HTTP2 = 64 * 1024, 2 * 1024


class StaticFiles:
    """The files in the folders of `settings`. Any thread may use it. Raises `ConfigError`."""

    def __init__(self, settings: Static) -> None:
        self._folders = Folders(settings)
        prefixes = {mount.prefix for mount in self._folders.mounts}
        #: A folder is mounted at /: the application answers requests for missing files.
        self._serves_root = "/" in prefixes
        self._prefixes = tuple(sorted(prefixes - {"/"}))
        self._bare_prefixes = frozenset(prefix[:-1] for prefix in self._prefixes)

    def may_serve(self, path: str) -> bool:
        """Whether `path`, as sent, may name a file. Does not block."""
        return self._serves_root or self._is_below(_decoded(path))

    def respond(
        self, method: str, path: str, fields: Mapping[str, str], *, most_read: int = _MOST_READ
    ) -> Response | None:
        """Return the response to a request for `path`, as sent; None leaves it to the application.

        `fields` are the header fields by their CGI names. A body of up to `most_read` octets is
        read here. May block on the disk. The caller closes the descriptor of a `FileBody`.
        """
        url = _decoded(path)
        below = self._is_below(url)
        if method not in ("GET", "HEAD"):
            return _NOT_ALLOWED if below else None
        found = self._folders.find(url) if below or self._serves_root else None
        missing = _NOT_FOUND if below else None
        if found is None:
            return missing
        if isinstance(found, Moved):
            return Response(302, found.headers)
        original = next(each for each in found if not each.coding)
        for variant in _acceptable_variants(found, fields):
            try:
                return _respond_with(variant, original, method, fields, most_read)
            except OSError:  # deleted or made unreadable since the folder was read
                continue
        return missing

    def _is_below(self, url: str) -> bool:
        return url.startswith(self._prefixes) or url in self._bare_prefixes


class StaticApp:
    """A `SyncApp` that serves the files, and passes other requests to `app`."""

    threadwell_interface = "sync"

    def __init__(self, app: SyncApp, files: StaticFiles) -> None:
        self._app = self.threadwell_wrapped = app
        self._files = files

    def __call__(self, request: Request) -> Response | None:
        head = request.head
        if self._files.may_serve(head.path):
            most_read = _MOST_READ_HTTP2 if head.version == "2" else _MOST_READ
            response = self._files.respond(
                head.method, head.path, head.variables, most_read=most_read
            )
            if response is not None:
                return response
        return self._app(request)


def _decoded(path: str) -> str:
    """Decode the percent-encoding of `path` once; octets that are not UTF-8 become surrogates."""
    if "%" not in path and path.isascii():
        return path
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "surrogateescape")


def _acceptable_variants(
    variants: tuple[Variant, ...], fields: Mapping[str, str]
) -> Iterator[Variant]:
    """The variants that the client accepts, smallest first, up to the file itself."""
    accepted = accepted_codings(fields.get("HTTP_ACCEPT_ENCODING", ""))
    for variant in variants:
        if not variant.coding or variant.coding in accepted:
            yield variant
        if not variant.coding:
            return


def _respond_with(
    variant: Variant,
    original: Variant,
    method: str,
    fields: Mapping[str, str],
    most_read: int,
) -> Response:
    """Open `variant` and return its response.

    Raises `OSError` if it was deleted, is not readable, or is a compressed file that is older than
    `original`.
    """
    fd = os.open(variant.path, _OPEN_FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(variant.path)
        if variant is not original and is_outdated(status, os.stat(original.path)):
            raise FileNotFoundError(variant.path)
        # the file may have been replaced since the folder was read, and the headers must match
        variant = variant.with_status(status)
        response = _respond_with_file(variant, fd, method, fields, most_read)
    except BaseException:
        os.close(fd)
        raise
    if not isinstance(response.body, FileBody):
        os.close(fd)
    return response


def _respond_with_file(
    variant: Variant, fd: int, method: str, fields: Mapping[str, str], most_read: int
) -> Response:
    size = variant.size
    part = None
    if not CONDITIONAL.isdisjoint(fields):
        code = precondition(fields, variant.etag, variant.modified)
        if code == 304:
            fields_sent = [pair for pair in variant.headers if pair[0] in _NOT_MODIFIED_FIELDS]
            return Response(304, fields_sent)
        if code:
            return _PRECONDITION_FAILED
        if method == "GET":
            part = wanted_range(fields, size, variant.etag, variant.modified)
    if part is None:
        headers = [*variant.headers, ("Content-Length", str(size))]
        return Response(200, headers, b"" if method == "HEAD" else _body(fd, 0, size, most_read))
    begin, length = part
    if not length:
        unsatisfied = [TEXT_PLAIN, ("Content-Range", f"bytes */{size}")]
        return Response(416, unsatisfied, b"Range Not Satisfiable\n")
    where = ("Content-Range", f"bytes {begin}-{begin + length - 1}/{size}")
    headers = [*variant.headers, where, ("Content-Length", str(length))]
    return Response(206, headers, _body(fd, begin, length, most_read))


def _body(fd: int, begin: int, length: int, most_read: int) -> bytes | FileBody:
    """The octets of the file; or the file, which the worker reads and closes."""
    file = FileBody(fd, begin, length)
    if length <= most_read:
        data = read_some(file, length)
        if len(data) == length:  # else the file has become shorter meanwhile: see `SendBuffer`
            return data
    return file
