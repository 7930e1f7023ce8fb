"""Field lines that were checked before: each distinct line is checked once.

    FieldCache.parse           a head that is known except for the values that change
      FieldCache._parse_lines  any other head, line by line

A client sends the same field lines in the same order with each request. Only some values are
different each time, or secret (`NEVER_CACHED`). Their names are kept, and the octets around them.
The values themselves are never kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..http.grammar import FIELD_CHECK, HOST, NEVER_CACHED, TOKEN
from ..messages import NOTHING_COMMON, CommonFields, cgi_name

_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}

_LONGEST_CACHED_LINE = 256
_MOST_CACHED_LINES = 1024
# The layouts are tried one after the other. Browsers have one for documents, one for images, ...
_MOST_LAYOUTS = 16

# The fields that control the connection, or the transfer of the body.
_CONNECTION_FIELDS = frozenset(
    ("HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "HTTP_UPGRADE", "HTTP_EXPECT")
)

#: The variables of a head without those in common with others; these; the version; whether that is
#: 1.1 and no field affects the connection.
Fields = tuple[dict[str, str], CommonFields, str, bool]


class SlowPathError(Exception):
    """The fast path does not handle this head; h11 does."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """A head without the values that change. Its octets have been checked."""

    #: The octets before the first of these values: the version, field lines, a name.
    start: bytes
    #: The variable of each of these values, and the text between it and the next one.
    changing: list[tuple[str, str]]
    #: All variables; those of the values that change are empty.
    common: CommonFields
    version: str
    stays_open: bool


def _is_valid(value: str) -> bool:
    """Whether a field value has no forbidden octet. `isprintable` is stricter, and faster."""
    octets = value.encode("latin-1")
    return octets.translate(FIELD_CHECK) == octets


class FieldCache:
    """Maps field lines to CGI variables, after checking them. Bounded; used by one thread."""

    def __init__(self, most_lines: int) -> None:
        self._most_lines = most_lines
        self._names: dict[bytes, str] = {}
        self._lines: dict[bytes, tuple[str, str]] = {}
        #: How many lines were not in `_lines`, except those that never are.
        self._new_lines = 0
        self._layouts: list[_Layout] = []

    def parse(self, block: bytes) -> Fields:
        """Parse `block`: the version and the field lines of a head, as received.

        Raises `SlowPathError`, and `KeyError` for an unknown version.
        """
        for layout in self._layouts:
            octets = block.removeprefix(layout.start)
            if octets is block:
                continue
            # the codec of UTF-8, which ASCII is, too, needs not be looked up
            rest = octets.decode() if octets.isascii() else octets.decode("latin-1")
            variables = {}
            for variable, following in layout.changing:
                if following:
                    value, found, rest = rest.partition(following)
                else:
                    value, found, rest = rest, "\r\n", ""
                # without CR and LF, what was found before `following` is the value of one line
                if not found or not (value.isprintable() or _is_valid(value)):
                    break  # another layout
                variables[variable] = value.strip(" \t")
            else:
                if not rest:
                    return variables, layout.common, layout.version, layout.stays_open
        return self._parse_lines(block)

    def _parse_lines(self, block: bytes) -> Fields:
        raw_version, *lines = block.split(b"\r\n")
        version = _VERSIONS[raw_version]
        new_lines = self._new_lines
        known = self._lines.get
        variables = dict([known(line) or self._line(line) for line in lines])
        if len(variables) != len(lines) or len(lines) > self._most_lines:
            raise SlowPathError  # a field that comes twice, or too many
        if "HTTP_HOST" not in variables or "HTTP_TRANSFER_ENCODING" in variables:
            raise SlowPathError
        stays_open = version == "1.1" and not affects_connection(variables)
        if self._new_lines == new_lines:
            # a layout that comes once would only cost others their place
            self._learn(block, variables, version, stays_open)
        return variables, NOTHING_COMMON, version, stays_open

    def _learn(
        self, block: bytes, variables: dict[str, str], version: str, stays_open: bool
    ) -> None:
        """Keep the layout of a head, which has `variables`."""
        text, *lines = block.split(b"\r\n")
        texts = []
        changing = []
        for line, variable in zip(lines, variables, strict=True):
            text += b"\r\n"
            if variable not in NEVER_CACHED:
                text += line
                continue
            name, _, value = line.partition(b":")
            if not value.startswith(b" "):
                return  # a rare way to write it
            texts.append(text + name + b": ")
            changing.append(variable)
            text = b""
        start, *following = [*texts, text]
        between = [str(octets, "latin-1") for octets in following]
        layout = _Layout(
            start,
            list(zip(changing, between, strict=True)),
            CommonFields(variables | dict.fromkeys(changing, "")),
            version,
            stays_open,
        )
        self._layouts = [layout, *self._layouts[: _MOST_LAYOUTS - 1]]

    def _line(self, line: bytes) -> tuple[str, str]:
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or raw_value.translate(FIELD_CHECK) != raw_value:
            raise SlowPathError
        variable = self._names.get(raw_name) or self._name(raw_name)
        pair = (variable, raw_value.strip(b" \t").decode("latin-1"))
        if variable in NEVER_CACHED:
            return pair
        if variable == "HTTP_HOST" and HOST.fullmatch(pair[1]) is None:
            raise SlowPathError
        self._new_lines += 1
        if len(line) > _LONGEST_CACHED_LINE:
            return pair
        if len(self._lines) >= _MOST_CACHED_LINES:
            self._lines.clear()
        self._lines[line] = pair
        return pair

    def _name(self, raw_name: bytes) -> str:
        if not raw_name or raw_name.translate(None, TOKEN):
            raise SlowPathError
        if b"_" in raw_name:
            raise SlowPathError  # no variable: see `RequestReceived`
        variable = cgi_name(raw_name.decode("ascii"))
        if len(raw_name) <= _LONGEST_CACHED_LINE:
            if len(self._names) >= _MOST_CACHED_LINES:
                self._names.clear()
            self._names[raw_name] = variable
        return variable


def affects_connection(variables: dict[str, str]) -> bool:
    """Whether one of `variables` controls the connection, or the transfer of the body."""
    steering = _CONNECTION_FIELDS.intersection(variables)
    if steering == {"HTTP_CONNECTION"}:
        # browsers send it, and it is the default of HTTP/1.1
        return variables["HTTP_CONNECTION"].lower() != "keep-alive"
    return bool(steering)
