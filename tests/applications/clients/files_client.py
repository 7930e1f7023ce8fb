"""Gets the files behind every middleware: plain, compressed, a range, a condition, HEAD."""

import gzip
import json
import sys
from pathlib import Path

import brotli
import httpx

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = Path("files/text.txt").read_bytes()
DECODERS = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
    "": bytes,
}
ASKED = {"none": "gzip, br, zstd", "gzip": "gzip", "brotli": "br", "zstd": "zstd"}

found = {}
with httpx.Client(timeout=60) as client:

    def get(path: str, **headers: str) -> tuple[httpx.Response, bytes]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        with client.stream("GET", url + path, headers=fields) as response:
            return response, b"".join(response.iter_raw())

    for framework in ("starlette", "litestar", "quart"):
        for middleware, accepted in ASKED.items():
            url = f"{sys.argv[1]}/{framework}/{middleware}"
            for path in ("/file", "/static/text.txt"):
                response, body = get(path, accept_encoding=accepted)
                coding = response.headers.get("content-encoding", "")
                assert (response.status_code, DECODERS[coding](body)) == (200, TEXT)
                plain, body = get(path, accept_encoding="identity")
                assert (plain.status_code, body) == (200, TEXT)
                head = client.head(url + path)
                assert head.content == b""
                part, body = get(path, accept_encoding="identity", range="bytes=10-19")
                assert body == (TEXT[10:20] if part.status_code == 206 else TEXT)
                tag = plain.headers["etag"]
                same, body = get(path, if_none_match=tag, accept_encoding="identity")
                assert body == (b"" if same.status_code == 304 else TEXT)
                codes = [head.status_code, part.status_code, same.status_code]
                found[f"{framework} {middleware} {path}"] = [coding, *codes]
            large, body = get("/static/large.bin", accept_encoding="identity")
            assert body == Path("files/large.bin").read_bytes()
print(json.dumps(found))
