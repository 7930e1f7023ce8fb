"""WsgiDAV: a WebDAV server (RFC 4918), used by litmus, the protocol's test suite."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from .application import Application, Server, Site
from .environments import Environment

USER = ("user", "secret")


def prepare(environment: Environment, folder: Path) -> None:
    """The configuration of its own command."""
    (folder / "shared").mkdir()
    (folder / "wsgidav.yaml").write_text(
        "server: cheroot\n"
        "provider_mapping: {'/': shared}\n"
        "simple_dc: {user_mapping: {'*': {user: {password: secret}}}}\n"
        "http_authenticator: {accept_basic: true, accept_digest: false, default_to_digest: false}\n"
        "property_manager: true\nlock_storage: true\nverbose: 1\n"
    )


APPLICATION = Application(
    name="WsgiDAV",
    distribution="wsgidav",
    requirements=["wsgidav>=4.3,<5", "cheroot>=10", "lxml>=5"],
    servers={
        "threadwell": Server(
            "threadwell {projects}/wsgidav_app.py:app --bind 127.0.0.1:{port}",
        ),
        "its own (cheroot)": Server(
            "wsgidav --config wsgidav.yaml --host 127.0.0.1 --port {port}",
            exit_code=-15,
        ),
    },
    prepare=prepare,
)


def litmus(site: Site, suite: str) -> list[str]:
    """Run one of its suites; the last of its summary, and the names of the tests that failed."""
    program = shutil.which("litmus")
    if program is None:
        pytest.skip("litmus is not installed (Debian's package litmus)")
    done = subprocess.run(
        [program, "--keep-going", f"{site.url}/", *USER],
        check=False,
        cwd=site.folder,
        env={**site.environ, "TESTS": suite},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
    )
    summary = re.search(r"of (\d+ tests run: \d+ passed, \d+ failed)", done.stdout)
    assert summary, done.stdout
    return [summary[1], *re.findall(r"\d+\. (\w+)\.+ FAIL", done.stdout)]


def test_basic(site: Site) -> None:
    """litmus, suite basic: 16 of 16."""
    assert litmus(site, "basic") == ["16 tests run: 16 passed, 0 failed"]


def test_copymove(site: Site) -> None:
    """litmus, suite copymove: 13 of 13."""
    assert litmus(site, "copymove") == ["13 tests run: 13 passed, 0 failed"]


def test_props(site: Site) -> None:
    """litmus, suite props: 30 of 30."""
    assert litmus(site, "props") == ["30 tests run: 30 passed, 0 failed"]


def test_http(site: Site) -> None:
    """litmus, suite http, with Expect: 100-continue: 4 of 4."""
    assert litmus(site, "http") == ["4 tests run: 4 passed, 0 failed"]


def test_locks(site: Site) -> None:
    """litmus, suite locks: 9 of 13, since WsgiDAV writes the field Lock-Token without its angle
    brackets (RFC 4918, 10.5)."""
    failed = ["lock_excl", "lock_shared", "lock_collection", "unmapped_lock"]
    assert litmus(site, "locks") == ["13 tests run: 9 passed, 4 failed", *failed]


def test_large_file(site: Site) -> None:
    """PUT 20 MB chunked, GET them and a range of them, and list the folder."""
    session = requests.Session()
    session.auth = USER
    block = bytes(range(256)) * 4096
    put = session.put(f"{site.url}/large", data=iter([block] * 20), timeout=60)
    assert put.status_code == 201
    got = session.get(f"{site.url}/large", timeout=60)
    assert got.content == block * 20
    part = session.get(f"{site.url}/large", headers={"Range": "bytes=256-259"}, timeout=60)
    assert (part.status_code, part.content) == (206, b"\x00\x01\x02\x03")
    listed = session.request("PROPFIND", f"{site.url}/", headers={"Depth": "1"}, timeout=60)
    assert listed.status_code == 207
    assert "/large" in listed.text


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
