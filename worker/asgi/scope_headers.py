"""The headers of scopes: names in lower case, and values, in the order received.

    HeaderLists.of_head     a head whose fields are known except for the values that change
      HeaderLists.of        the field lines of any other head
        _Layout.match       one that is known except for these values
        HeaderLists._split  one that is not, line by line

As in `http1.field_cache`, whose layouts make the variables of the same heads: what is kept are
lines that come again, and the names of the others. The values that are secret, or rarely repeated
(`NEVER_CACHED`), are never kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..http.grammar import NEVER_CACHED
from ..messages import NOTHING_COMMON, CommonFields, cgi_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..messages import RequestReceived

Headers = list[tuple[bytes, bytes]]

_NEVER_CACHED = frozenset(
    (
        b"sec-websocket-key",
        *(
            name.removeprefix("HTTP_").replace("_", "-").lower().encode("ascii")
            for name in NEVER_CACHED
        ),
    )
)
_CR = ord("\r")  # `in` takes three times as long for bytes
_LONGEST_CACHED_LINE = 256
_MOST_CACHED_LINES = 1024
# The layouts are tried one after the other. Browsers have one for documents, one for images, ...
_MOST_LAYOUTS = 16
# Each parser that heads come from has as many; in a hybrid, each thread has a parser.
_MOST_KNOWN = 8 * _MOST_LAYOUTS


class _Layout(NamedTuple):
    """A head without the values that change."""

    #: The octets before the first of these values: the version, field lines, a name.
    start: bytes
    #: Where each of these values is in the list, its name, and the octets up to the next one.
    changing: list[tuple[int, bytes, bytes]]
    #: All headers; those whose values change are empty.
    headers: Headers

    def match(self, block: bytes) -> Headers | None:
        """Return the headers of `block`, which begins with `start`; None if it differs."""
        start, changing, headers = self
        headers = headers.copy()
        rest = block[len(start) :]
        for index, name, following in changing:
            if following:
                value, found, rest = rest.partition(following)
            else:
                value, found, rest = rest, b"\r\n", b""
            # without CR, what was found before `following` is the value of one line
            if not found or _CR in value:
                return None
            headers[index] = name, value.strip(b" \t")
        return None if rest else headers


class HeaderLists:
    """Makes the headers of scopes from heads that were checked. Bounded; used by one thread."""

    def __init__(self) -> None:
        self._lines: dict[bytes, tuple[bytes, bytes]] = {}
        #: How many lines were not in `_lines`, except those that never are.
        self._new_lines = 0
        self._layouts: list[_Layout] = []
        # by what heads have in common: all headers, without the values that change; and for each of
        # these its place, its name and its variable
        self._known: dict[CommonFields, tuple[Headers, list[tuple[int, bytes, str]]]] = {}

    def of_head(self, head: RequestReceived) -> Headers:
        """The headers of `head`, a list of the caller's own."""
        common = head.common  # before `own`: see `RequestReceived.variables`
        if common is NOTHING_COMMON:
            return self.of(head.block)
        own = head.own
        kept, changing = self._known.get(common) or self._know(head.block, common, own)
        headers = kept.copy()
        for index, name, variable in changing:
            value = own[variable]
            # the codec of UTF-8, which ASCII is, too, needs not be looked up
            headers[index] = name, value.encode() if value.isascii() else value.encode("latin-1")
        return headers

    def _know(
        self, block: bytes, common: CommonFields, own: Mapping[str, str]
    ) -> tuple[Headers, list[tuple[int, bytes, str]]]:
        """Keep the headers of `block` that it has in `common` with others; `own` are those that it
        has not."""
        headers = self._split(block)
        changing: list[tuple[int, bytes, str]] = []
        for index, (name, _) in enumerate(headers):
            variable = cgi_name(name.decode("ascii"))
            if variable in own:
                headers[index] = name, b""
                changing.append((index, name, variable))
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[common] = known = headers, changing
        return known

    def of(self, block: bytes) -> Headers:
        """The headers in `block`, a list of the caller's own; see `RequestReceived.block`."""
        for layout in self._layouts:
            if block.startswith(layout[0]):
                headers = layout.match(block)
                if headers is not None:
                    return headers
        return self._split(block)

    def _split(self, block: bytes) -> Headers:
        version, *lines = block.split(b"\r\n")
        new_lines = self._new_lines
        known = self._lines.get
        headers = [known(line) or self._line(line) for line in lines]
        if self._new_lines == new_lines:
            # a layout that comes once would only cost others their place
            self._learn(version, lines, headers)
        return headers

    def _learn(self, text: bytes, lines: list[bytes], headers: Headers) -> None:
        """Keep the layout of a head, whose version is `text`."""
        texts: list[bytes] = []
        changing: list[tuple[int, bytes]] = []
        kept = headers.copy()
        for index, (line, (name, _)) in enumerate(zip(lines, headers, strict=True)):
            text += b"\r\n"
            if name not in _NEVER_CACHED:
                text += line
                continue
            raw_name = line[: len(name)]
            if not line.startswith(b": ", len(name)):
                return  # a rare way to write it
            texts.append(text + raw_name + b": ")
            changing.append((index, name))
            kept[index] = (name, b"")
            text = b""
        start, *following = [*texts, text]
        layout = _Layout(
            start,
            [(*each, octets) for each, octets in zip(changing, following, strict=True)],
            kept,
        )
        self._layouts = [layout, *self._layouts[: _MOST_LAYOUTS - 1]]

    def _line(self, line: bytes) -> tuple[bytes, bytes]:
        raw_name, _, value = line.partition(b":")
        name = raw_name.lower()
        pair = (name, value.strip(b" \t"))
        if name in _NEVER_CACHED:
            return pair
        self._new_lines += 1
        if len(line) <= _LONGEST_CACHED_LINE:
            if len(self._lines) >= _MOST_CACHED_LINES:
                self._lines.clear()
            self._lines[line] = pair
        return pair
