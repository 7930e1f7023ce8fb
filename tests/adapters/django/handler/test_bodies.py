"""Request bodies under Django: forms, uploads and their limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from ....helpers.wire_client import Client
from .site import Open, Site, chunked, post, site_with

pytest.importorskip("django")


def multipart(fields: dict[str, str], files: dict[str, bytes]) -> tuple[str, bytes]:
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return "Content-Type: multipart/form-data; boundary=limit", b"".join(parts) + b"--limit--\r\n"


FORM, FILES = multipart({"a": "1", "ü": "é"}, {"small": b"x" * 10, "large": b"y" * 2_700_000})


@pytest.mark.parametrize("server", ["direct", "wsgi"])
def test_a_chunked_form_passes_csrf(server: str, site: Site, dial: Open) -> None:
    """Elsewhere Django sees no body without a length, and so no token."""
    client = dial(site, server)
    answer = client.get("/protected")
    cookie = str(answer.header("set-cookie")).partition(";")[0]
    form = b"said=hello&csrfmiddlewaretoken=" + answer.body
    kind = "Content-Type: application/x-www-form-urlencoded"
    client.send(chunked("/protected", form, kind, f"Cookie: {cookie}", size=7))
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello")
    body = multipart({"said": "x" * 100_000, "csrfmiddlewaretoken": form.decode()[-64:]}, {})
    client.send(chunked("/protected", body[1], body[0], f"Cookie: {cookie}", size=3000))
    assert client.answer().body == b"x" * 100_000


def _parts(client: Client) -> Any:
    answer = client.answer()
    assert answer.status == 200, answer
    return json.loads(answer.body)


@pytest.mark.parametrize("encode", [post, chunked])
@pytest.mark.parametrize("server", ["direct", "wsgi"])
def test_uploads(server: str, encode: Callable[..., bytes], site: Site, dial: Open) -> None:
    client = dial(site, server)
    extra = {"size": 65536} if encode is chunked else {}
    client.send(encode("/parts", FILES, FORM, **extra))
    told = _parts(client)
    assert told["form"] == {"a": "1", "ü": "é"}
    assert told["files"] == {
        "small": ["TemporaryUploadedFile", 10, hashlib.sha256(b"x" * 10).hexdigest()],
        "large": [
            "TemporaryUploadedFile",
            2_700_000,
            hashlib.sha256(b"y" * 2_700_000).hexdigest(),
        ],
    }


@pytest.mark.parametrize("encode", [post, chunked])
def test_small_uploads_stay_in_memory(encode: Callable[..., bytes], site: Site, dial: Open) -> None:
    client = dial(site)
    kind, data = multipart({}, {"small": b"x" * 10})
    client.send(encode("/parts", data, kind))
    assert _parts(client)["files"]["small"][0] == "InMemoryUploadedFile"


def test_a_large_upload_needs_little_memory(dial: Open) -> None:
    with site_with(threads=1) as site:
        client = dial(site)
        for encode in (post, chunked):
            extra = {"size": 65536} if encode is chunked else {}
            client.send(encode("/parts", FILES, FORM, **extra))
            _parts(client)
            before = site.ask("hwm")
            large = b"y" * (50 << 20)
            kind, data = multipart({}, {"large": large})
            extra = {"size": 1 << 20} if encode is chunked else {}
            client.send(encode("/parts", data, kind, **extra))
            told = _parts(client)
            digest = hashlib.sha256(large).hexdigest()
            assert told["files"] == {"large": ["TemporaryUploadedFile", len(large), digest]}
            assert site.ask("hwm") - before < 10 << 10
        site.finish()


@pytest.mark.parametrize("encode", [post, chunked])
def test_limits_of_django(encode: Callable[..., bytes], dial: Open) -> None:
    with site_with(DATA_UPLOAD_MAX_MEMORY_SIZE=1000, DATA_UPLOAD_MAX_NUMBER_FIELDS=5) as site:
        client = dial(site)
        form = "Content-Type: application/x-www-form-urlencoded"
        for body, status in (
            (b"a=" + b"b" * 998, 200),
            (b"a=" + b"b" * 999, 400),
            (b"a=1&" * 5 + b"a=1", 400),
            (b"a=1", 200),
        ):
            client.send(encode("/parts", body, form))
            assert client.answer().status == status
        kind, data = multipart({"a": "x" * 2000}, {})
        client.send(encode("/parts", data, kind))
        assert client.answer().status == 400
        # files do not count
        kind, data = multipart({"a": "x"}, {"f": b"y" * 100_000})
        client.send(encode("/parts", data, kind))
        assert _parts(client)["files"]["f"][1] == 100_000
        site.finish()


def test_a_body_that_was_begun(site: Site, dial: Open) -> None:
    client = dial(site)
    client.send(post("/reread", b"abcdefg"))
    told = json.loads(client.answer().body)
    assert told == {"begun": "abc", "rest": "RawPostDataException", "stream": "defg"}


@pytest.mark.parametrize("encode", [post, chunked])
def test_expect_continue(encode: Callable[..., bytes], site: Site, dial: Open) -> None:
    client = dial(site)
    data = encode("/body", b"abc" * 100, "Expect: 100-continue")
    begin, end, rest = data.partition(b"\r\n\r\n")
    client.send(begin + end)
    assert client.answer().status == 100
    client.send(rest)
    assert json.loads(client.answer().body)["size"] == 300
