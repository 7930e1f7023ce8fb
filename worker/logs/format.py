"""The formats of the access log: Apache's, or JSON."""

from __future__ import annotations

import base64
import copy
import os
import re
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _json_string

from ..errors import ConfigError
from ..lifecycle import ResponseCompleted
from ..messages import Address, Request, RequestReceived, cgi_name
from .clock import Clock, apache_time, iso_second

COMMON = '%h %l %u %t "%r" %>s %b'
COMBINED = COMMON + ' "%{Referer}i" "%{User-Agent}i"'

#: Formats an event as a log line: printable ASCII without a newline. Used by one thread.
LineOf = Callable[[ResponseCompleted], str]

_DIRECTIVE = re.compile(r"%(?:>?([A-Za-z%])|\{([^}]+)\}([A-Za-z]))")
# Characters that could end a log line or a quoted field early, escaped as Apache does.
_UNSAFE = re.compile(r'["\\]|[^\x20-\x7e]')
# Characters with an escape of their own, as in C.
_C_ESCAPES = {'"': '\\"', "\\": "\\\\"} | {
    character: f"\\{name}" for character, name in zip("\t\n\v\f\r", "tnvfr", strict=True)
}
# Lengths to which the fields of a log line that is too long are cut, tried in this order.
_CUT_SIZES = (1024, 512, 256, 128, 64, 32, 16)

# Bounds of the text caches.
_LONGEST_CACHED = 256
_MOST_CACHED = 1024

_Field = Callable[[ResponseCompleted], str]
_Known = Callable[[str], "str | None"]

# Small numbers as text: to look one up takes a tenth of what `str` takes.
_NUMBERS = tuple(map(str, range(1000)))
# The same in three digits. The last one is for a thousandth that was rounded up.
_PADDED = (*(f"{number:03}" for number in range(1000)), "999")


# Changes each octet that has to be escaped in a log line, in JSON too. To look for one so takes a
# tenth of what a regular expression takes, and half of `str.isprintable`.
_CHANGED = bytes(
    octet if 0x20 <= octet < 0x7F and octet not in b'"\\' else 0x20 for octet in range(256)
)


def _is_plain(text: str) -> bool:
    """Whether nothing in `text` has to be escaped."""
    return text.isascii() and (octets := text.encode()).translate(_CHANGED) == octets


def _escape(text: str) -> str:
    return text if _is_plain(text) else _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return _C_ESCAPES.get(character) or "".join(
        f"\\x{octet:02x}" for octet in character.encode("latin-1", "replace")
    )


def _cached(render: Callable[[str], str]) -> tuple[_Known, Callable[[str], str]]:
    """What finds the rendered form of a text that the same clients have sent before, if it is not
    empty; and what renders and remembers a text. Bounded."""
    known: dict[str, str] = {}

    def remember(text: str) -> str:
        rendered = render(text)
        if len(text) <= _LONGEST_CACHED:
            if len(known) >= _MOST_CACHED:
                known.clear()
            known[text] = rendered
        return rendered

    return known.get, remember


# ---- Fields --------------------------------------------------------------------------------


def received_at(event: ResponseCompleted) -> float:
    """Return when the request was complete, in seconds since the epoch."""
    return time.time() - event.seconds


def _time_field(text: str) -> _Field:
    """`%{TEXT}t`: a `strftime` format or one of Apache's words, after an optional `begin:` or
    `end:`."""
    side, colon, rest = text.partition(":")
    at: Callable[[ResponseCompleted], float] = received_at
    if colon and side in ("begin", "end"):
        text = rest
        if side == "end":
            at = _answered_at
    scales = {"sec": 1, "msec": 1000, "usec": 1000000}
    name, fraction = text.removesuffix("_frac"), text.endswith("_frac")
    if name in scales:
        scale = scales[name]
        if not fraction:
            return lambda event: str(int(at(event) * scale))
        if scale > 1:
            return lambda event: f"{int(at(event) % 1 * scale):0{len(str(scale)) - 1}}"
    clock = Clock(lambda second: _escape(time.strftime(text, time.localtime(second))))
    return lambda event: clock(at(event))


def _answered_at(event: ResponseCompleted) -> float:
    """The current time: log lines are formatted when the response is sent."""
    del event
    return time.time()


def _request_line(event: ResponseCompleted) -> str:
    request = event.request
    if request is None:
        return "-"
    head = request.head
    return _escape(f"{head.method} {head.target} HTTP/{head.version}")


def _header(name: str) -> _Field:
    variable = cgi_name(name)

    def value(event: ResponseCompleted) -> str:
        request = event.request
        if request is None:
            return "-"
        return _escape(request.head.variable(variable)) or "-"

    return value


def _response_header(name: str) -> _Field:
    wanted = name.lower()

    def value(event: ResponseCompleted) -> str:
        found = [_text(value) for name, value in event.headers if _text(name).lower() == wanted]
        return _escape(", ".join(found)) or "-"

    return value


def _text(part: str | bytes) -> str:
    """A name or a value of a header: an ASGI application gives bytes."""
    return part.decode("latin-1") if isinstance(part, bytes) else part


def _user_field(event: ResponseCompleted) -> str:
    return _user(event.request.header("authorization")) if event.request is not None else "-"


def _user(authorization: str) -> str:
    """The user of Basic authentication (RFC 7617), whether the application lets them in or not."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode("latin-1")
    except ValueError:
        return "-"
    return _escape(decoded.partition(":")[0]).replace(" ", "\\x20") or "-"


def _of_request(field: Callable[[Request], str]) -> _Field:
    return lambda event: _escape(field(event.request)) if event.request is not None else "-"


def _query(event: ResponseCompleted) -> str:
    return _escape("?" + event.request.query) if event.request and event.request.query else ""


def _port(event: ResponseCompleted) -> str:
    channel = event.request.channel if event.request is not None else None
    return str(channel.origin.server[1]) if channel is not None else "-"


def _duration(scale: float) -> _Field:
    return lambda event: str(int(event.seconds * scale))


def _fields() -> dict[str, _Field]:
    """Return the directives by letter, as in Apache's mod_log_config."""
    stamp = Clock(apache_time)
    return {
        "h": lambda event: event.client[0] or "-",
        "a": lambda event: event.client[0] or "-",
        "t": lambda event: stamp(received_at(event)),
        "r": _request_line,
        "s": lambda event: str(event.status) if event.status else "-",
        "b": lambda event: str(event.body_bytes or "-"),
        "B": lambda event: str(event.body_bytes),
        "m": _of_request(lambda request: request.method),
        "U": _of_request(lambda request: request.path),
        "q": _query,
        "H": _of_request(lambda request: f"HTTP/{request.version}"),
        "v": _of_request(lambda request: request.header("host") or "-"),
        "p": _port,
        "D": lambda event: str(round(event.seconds * 1e6)),
        "T": _duration(1),
        "X": lambda event: "+" if event.complete else "X",
        "L": lambda event: _escape(event.request_id) or "-",
        "P": lambda event: str(os.getpid()),
        "u": _user_field,
    }


# The percent sign, and the directive whose value is never known.
_CONSTANTS = {"%": "%", "l": "-"}
_DURATIONS = {"s": 1, "ms": 1e3, "us": 1e6}


def compile_format(text: str) -> LineOf:
    """Return the formatter for the format `text`. Raises `ConfigError` if it is invalid."""
    quick = compile_quick(text)
    if quick is not None:
        return _of_event(quick)
    if "%" not in text:
        raise ConfigError(f"log_format: {text!r} is neither common, combined, json nor a format")
    if "%" in _DIRECTIVE.sub("", text):
        raise ConfigError(f"log_format: a % without its letter in {text!r}")
    known = _fields()
    template, fields, at = "", [], 0
    for match in _DIRECTIVE.finditer(text):
        template += text[at : match.start()]
        at = match.end()
        if match[1] in _CONSTANTS:
            template += _CONSTANTS[match[1]].replace("%", "%%")
            continue
        fields.append(_directive(match, known))
        template += "%s"
    template += text[at:]
    return lambda event: template % tuple([field(event) for field in fields])


def _directive(match: re.Match[str], known: dict[str, _Field]) -> _Field:
    letter, argument, kind = match.groups()
    if match[0] == "%{c}a":
        return lambda event: event.peer[0] or "-"
    if letter in known:
        return known[letter]
    if kind == "i":
        return _header(argument)
    if kind == "o":
        return _response_header(argument)
    if kind == "t":
        return _time_field(argument)
    if kind == "T" and argument in _DURATIONS:
        return _duration(_DURATIONS[argument])
    raise ConfigError(f"log_format: {match[0]!r} is not known")


# The common formats, optimized: they need no `ResponseCompleted`, and put a line together in one
# step, where the directives above each make their part.

#: Formats what a `ResponseCompleted` has: client, peer, head of the request, status, octets of the
#: response's and of the request's body, start, seconds, complete, and the id. Used by one thread.
QuickLine = Callable[
    [Address, Address, "RequestReceived | None", int, int, int, float, float, bool, str], str
]


def compile_quick(text: str) -> QuickLine | None:
    """Return the quick formatter for the format `text`; None if it has none."""
    if text == "json":
        return _json_format()
    return _apache_format(combined=text == "combined") if text in ("common", "combined") else None


def _of_event(line: QuickLine) -> LineOf:
    def of_event(event: ResponseCompleted) -> str:
        return line(
            event.client,
            event.peer,
            event.request.head if event.request is not None else None,
            event.status,
            event.body_bytes,
            event.received,
            event.started,
            event.seconds,
            event.complete,
            event.request_id,
        )

    return of_event


def _apache_format(*, combined: bool) -> QuickLine:
    clock = Clock(apache_time)
    # each with what precedes it in a line, for a line of fewer parts is made in less time
    field, remember_field = _cached(lambda text: f' "{_escape(text) or "-"}"')
    method, remember_method = _cached(lambda text: f"{_escape(text)} ")
    codes, numbers, most = _CODES, _NUMBERS, len(_NUMBERS)
    none = ' "-"' if combined else ""
    begins, ends, stamp, lead = 0.0, 0.0, "", ""

    def line(
        client: Address,
        peer: Address,  # noqa: ARG001
        head: RequestReceived | None,
        status: int,
        sent: int,
        received: int,  # noqa: ARG001
        started: float,
        # named, because a tuple of the others would be made for each line
        seconds: float,  # noqa: ARG001
        complete: bool,  # noqa: ARG001
        request_id: str,  # noqa: ARG001
    ) -> str:
        nonlocal begins, ends, stamp, lead
        if not begins <= started < ends:
            begins, ends, stamp = clock.second_of(started)
            lead = f' - - {stamp} "'
        before, referer, agent = lead, none, none
        size = (numbers[sent] if sent < most else str(sent)) if sent else "-"
        if head is None:
            return f"{client[0] or '-'}{lead}-{codes[status]}{size}{none}{none}"
        target, own = head.target, head.own
        if not (target.isascii() and (raw := target.encode()).translate(_CHANGED) == raw):
            target = _escape(target)
        if "HTTP_AUTHORIZATION" in own:  # it is never among the known ones
            before = f' - {_user(own["HTTP_AUTHORIZATION"])} {stamp} "'
        if combined:
            # not `head.variables`, which would merge them; in this order: see `RequestReceived`
            known, own = head.common.variables, head.own
            if text := own.get("HTTP_REFERER") or known.get("HTTP_REFERER"):
                referer = field(text) or remember_field(text)
            if text := own.get("HTTP_USER_AGENT") or known.get("HTTP_USER_AGENT"):
                agent = field(text) or remember_field(text)
        asked = method(head.method) or remember_method(head.method)
        return (
            f"{client[0] or '-'}{before}{asked}{target} HTTP/{head.version}"
            f"{codes[status]}{size}{referer}{agent}"
        )

    return line


# The end of the request line and the status; "-" where there is none.
_CODES = ('" - ', *(f'" {number} ' for number in range(1, 1000)))


# What is remembered has its name with it, for the same reason as in `_apache_format`; besides, a
# line of more than 30 parts would be put together through a list.
def _json_format() -> QuickLine:
    clock = Clock(iso_second)
    clients, remember_client = _cached(lambda host: f'+00:00", "client": {_json_string(host)}')
    peers, remember_peer = _cached(lambda host: f', "peer": {_json_string(host)}')
    both, remember_both = _cached(lambda host: remember_client(host) + remember_peer(host))
    method, remember_method = _cached(lambda text: f', "method": {_json_string(text)}, "target": ')
    referers, remember_referer = _cached(lambda text: f', "referer": {_json_string(text)}')
    agents, remember_agent = _cached(lambda text: f', "user_agent": {_json_string(text)}')
    numbers, padded, most = _NUMBERS, _PADDED, len(_NUMBERS)
    begins, ends, stamp = 0.0, 0.0, ""

    def line(
        client: Address,
        peer: Address,
        head: RequestReceived | None,
        status: int,
        sent: int,
        received: int,
        started: float,
        seconds: float,
        complete: bool,
        request_id: str,
    ) -> str:
        nonlocal begins, ends, stamp
        if not begins <= started < ends:
            begins, ends, stamp = clock.second_of(started)
            stamp = f'{{"time": "{stamp}.'
        asked, target, protocol, referer, agent = _NO_HEAD
        if head is not None:
            target = head.target
            known, own = head.common.variables, head.own  # as above
            if target.isascii() and (raw := target.encode()).translate(_CHANGED) == raw:
                target = f'"{target}"'
            else:
                target = _json_string(target)
            asked = method(head.method) or remember_method(head.method)
            protocol = _PROTOCOLS[head.version]
            if text := own.get("HTTP_REFERER") or known.get("HTTP_REFERER"):
                referer = referers(text) or remember_referer(text)
            if text := own.get("HTTP_USER_AGENT") or known.get("HTTP_USER_AGENT"):
                agent = agents(text) or remember_agent(text)
        if peer is client:
            addresses = both(client[0]) or remember_both(client[0])
        else:
            addresses = clients(client[0]) or remember_client(client[0])
            addresses += peers(peer[0]) or remember_peer(peer[0])
        whole, micros = "0", int(seconds * 1e6 + 0.5)
        if micros >= 1000000:
            whole, micros = str(micros // 1000000), micros % 1000000
        return (
            f"{stamp}{padded[int((started - begins) * 1000)]}{addresses}{asked}{target}"
            f', "protocol": {protocol}, "status": {numbers[status]}'
            f', "bytes": {numbers[sent] if sent < most else str(sent)}'
            f', "received": {received or "0"}'
            f', "seconds": {whole}.{padded[micros // 1000]}{padded[micros % 1000]}'
            f', "complete": {"true" if complete else "false"}{referer}{agent}'
            f', "request_id": {_json_string(request_id) if request_id else _EMPTY}}}'
        )

    return line


_NO_HEAD = (', "method": null, "target": ', "null", "null", ', "referer": ""', ', "user_agent": ""')
_PROTOCOLS = {version: f'"HTTP/{version}"' for version in ("1.0", "1.1", "2")}
_EMPTY = '""'


# ---- Log lines of a limited length -------------------------------------------------------------


def fit_line(line_of: LineOf, event: ResponseCompleted, most: int) -> str:
    """Format `event` in at most `most` characters, by cutting the texts that the client sent.

    A JSON line stays valid JSON.
    """
    line = line_of(event)
    for size in _CUT_SIZES:
        if len(line) <= most or event.request is None:
            break
        line = line_of(_shorten_request(event, event.request, size))
    return line if len(line) <= most else line[:most]


def _shorten_request(event: ResponseCompleted, request: Request, size: int) -> ResponseCompleted:
    def short(text: str) -> str:
        return text if len(text) <= size else text[:size] + "..."

    head = request.head
    head = head._replace(
        method=short(head.method),
        target=short(head.target),
        path=short(head.path),
        query=short(head.query),
        variables={name: short(value) for name, value in head.variables.items()},
    )
    event = copy.copy(event)
    event.request = request._replace(head=head)
    return event
