"""HTTP/1.1: the corpus of tests/end_to_end/wire, sent to any server, each file on a connection."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.helpers.wire_corpus import INVALID, SMUGGLED, VALID, corpus, expected

# Seconds without an octet until a server is taken for one that waits for more.
_PATIENCE = 3.0
_CONNECTIONS = 8

_COMMA = re.compile(", *")

Result = dict[str, Any]


@dataclass
class Answer:
    """A final response, as far as it matters here."""

    status: int
    body: bytes


class Incomplete(Exception):
    """The octets end within an answer."""


def run(port: int) -> Result:
    """What a server on `port` makes of the corpus: for each file, what was wrong with the valid
    ones, and which of "refused", "taken" and "silent" became of the invalid ones."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        valid = pool.map(lambda path: _valid(port, path), VALID)
        invalid = pool.map(lambda path: _invalid(port, path), INVALID)
        return {
            "valid": {path.stem: what for path, what in zip(VALID, valid, strict=True)},
            "invalid": {path.stem: what for path, what in zip(INVALID, invalid, strict=True)},
        }


# ---- The verdicts --------------------------------------------------------------------------


def _valid(port: int, path: Path) -> str:
    """What is wrong with the answers to a valid file; empty if nothing is."""
    requests, closes = expected(path)
    methods = [wanted.get("method", "GET") for wanted in requests]
    data, ended = _exchange(port, corpus(path)[1], methods, closes=closes)
    try:
        answers = _answers(data, methods)
    except (Incomplete, ValueError):
        return "no whole answer"
    for answer, wanted in zip(answers, requests, strict=False):
        if answer.status != 200:
            return f"status {answer.status}"
        wrong = _differs(answer.body, wanted) if wanted.get("method") != "HEAD" else ""
        if wrong:
            return wrong
    if len(answers) != len(requests):
        return f"{len(answers)} answers to {len(requests)} requests"
    return "stays open" if closes and not ended else ""


def _differs(body: bytes, wanted: dict[str, Any]) -> str:
    """In what the application saw another request than `wanted`."""
    seen = json.loads(body)
    if "path" in wanted:
        wanted = {"path_info": unquote_to_bytes(wanted["path"]).decode("latin-1"), **wanted}
    for name, key in (("method", "method"), ("path_info", "path"), ("query", "query")):
        if name in wanted and seen[key] != wanted[name]:
            return f"another {name}"
    for name, value in wanted.get("headers", {}).items():
        field = seen["headers"].get(name.upper().replace("-", "_"), "")
        # a blank behind the comma between joined values is optional (RFC 9110, 5.3)
        if _COMMA.sub(",", field) != _COMMA.sub(",", value):
            return f"another {name}"
    return "another body" if wanted.get("body", seen["body"]) != seen["body"] else ""


def _invalid(port: int, path: Path) -> str:
    """ "refused", also without an answer; "taken" by the application; or "silent": the server
    waits for more."""
    data, ended = _exchange(port, corpus(path)[1] + SMUGGLED, None, closes=True)
    try:
        answers = _answers(data, ["GET"] * 100)
    except (Incomplete, ValueError):
        answers = []
    if any(200 <= answer.status < 300 for answer in answers):
        return "taken"
    return "refused" if ended or answers else "silent"


# ---- On the wire ---------------------------------------------------------------------------


def _exchange(
    port: int, data: bytes, methods: list[str] | None, *, closes: bool
) -> tuple[bytes, bool]:
    """Send `data`; what comes until all answers are there, or the end, and whether it was the end.

    With `closes` the end is waited for behind the answers too.
    """
    received, until = b"", time.monotonic() + 4 * _PATIENCE
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):  # it may be refused before all was sent
            sock.sendall(data)
        while time.monotonic() < until:
            if methods is not None and not closes and _is_complete(received, methods):
                return received, False
            try:
                block = sock.recv(65536)
            except TimeoutError:
                return received, False
            except OSError:
                return received, True
            if not block:
                return received, True
            received += block
    return received, False


def _is_complete(data: bytes, methods: list[str]) -> bool:
    try:
        return len(_answers(data, methods)) >= len(methods)
    except (Incomplete, ValueError):
        return False


def _answers(data: bytes, methods: list[str]) -> list[Answer]:
    """The final answers in `data`, to requests with `methods`. Raises `Incomplete`, and
    `ValueError` for what is no answer."""
    found: list[Answer] = []
    while data and len(found) < len(methods):
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            raise Incomplete
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        if status < 200:
            data = rest
            continue
        if methods[len(found)] == "HEAD" or status in (204, 304):
            body, data = b"", rest
        elif "chunked" in fields.get("transfer-encoding", "").lower():
            body, data = _chunks(rest)
        elif "content-length" in fields:
            length = int(fields["content-length"])
            if len(rest) < length:
                raise Incomplete
            body, data = rest[:length], rest[length:]
        else:
            body, data = rest, b""
        found.append(Answer(status, body))
    return found


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Incomplete
        size = int(line.partition(b";")[0], 16)
        if len(data) < size + 2:
            raise Incomplete
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data
