"""Files of Starlette, Litestar and Quart behind middleware that compresses: the extension
`http.response.pathsend`, which would pass by the middleware, must not be offered unasked."""

from __future__ import annotations

from pathlib import Path

from .application import Application, Server, Site
from .environments import Environment


def prepare(environment: Environment, folder: Path) -> None:
    """A text, and a file larger than any buffer."""
    (folder / "files").mkdir()
    (folder / "files" / "text.txt").write_bytes(b"some text " * 2000)
    (folder / "files" / "large.bin").write_bytes(bytes(range(256)) * 20_000)


APPLICATION = Application(
    name="Files behind compressing middleware (Starlette, Litestar, Quart)",
    distribution="starlette",
    requirements=[
        "starlette>=0.40",
        "litestar>=2.12,<3",
        "quart>=0.20,<0.21",
        "brotli-asgi>=1.4,<2",
        "zstd-asgi>=0.1",
        "backports.zstd>=1; python_version < '3.14'",
        "httpx>=0.28",
        "uvicorn[standard]>=0.35",
        "hypercorn>=0.17",
    ],
    servers={
        "threadwell": Server(
            "threadwell {projects}/files_app.py:app --bind 127.0.0.1:{port}",
        ),
        "uvicorn": Server(
            "uvicorn --app-dir {projects} --port {port} files_app:app",
            exit_code=-15,
        ),
        "hypercorn": Server(
            "hypercorn --bind 127.0.0.1:{port} {projects}/files_app.py:app",
        ),
    },
    prepare=prepare,
)

CODINGS = {"none": "", "gzip": "gzip", "brotli": "br", "zstd": "zstd"}
# The status of HEAD, of a range and of a condition: Litestar knows the last two for none.
STATUSES = {
    "starlette {} /file": [200, 206, 200],
    "starlette {} /static/text.txt": [200, 206, 304],
    "litestar {} /file": [405, 200, 200],
    "litestar {} /static/text.txt": [200, 200, 200],
    "quart {} /file": [200, 206, 304],
    "quart {} /static/text.txt": [200, 206, 304],
}


def test_client(site: Site) -> None:
    """A file response and a static file of each framework, plain and behind GZipMiddleware,
    brotli-asgi and zstd-asgi: compressed, plain if asked for, HEAD, ranges, conditions, 5 MB."""
    assert site.client("files_client.py") == {
        name.format(middleware): [coding, *statuses]
        for name, statuses in STATUSES.items()
        for middleware, coding in CODINGS.items()
    }


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
