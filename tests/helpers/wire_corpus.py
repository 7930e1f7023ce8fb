"""The requests on the wire, as files, and what must be seen of them.

A corpus file is Latin-1 text. Real line ends mean nothing; escapes are `\\r`, `\\n`, `\\t`, `\\\\`,
`\\xHH`, and `\\12{text}` for text twelve times, escapes included. Leading lines with `# ` are
comments; the first of an invalid file is the status that must be answered. Beside a valid file
stands what the application must see, as JSON: fields that are not named are not compared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parent.parent / "end_to_end" / "wire" / "corpus"
VALID = sorted((CORPUS / "valid").glob("*.http"))
INVALID = sorted((CORPUS / "invalid").glob("*.http"))

_ESCAPE = re.compile(rb"\\(?:([rnt\\])|x([0-9a-f]{2})|([0-9]+)\{([^}]*)\})")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}

FIRST = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def corpus(path: Path) -> tuple[list[str], bytes]:
    """The comments and the octets of a corpus file."""
    lines = path.read_bytes().split(b"\n")
    comments = []
    while lines[0].startswith(b"# "):
        comments.append(lines.pop(0)[2:].decode())
    return comments, _unescaped(b"".join(lines))


def _unescaped(text: bytes) -> bytes:
    def octets(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return _PLAIN[match[1]]
        return (
            bytes.fromhex(match[2].decode()) if match[2] else _unescaped(match[4]) * int(match[3])
        )

    return _ESCAPE.sub(octets, text)


def expected(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The requests that must be seen, and whether the connection is closed after them."""
    data = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return data["requests"], data["closes"]
