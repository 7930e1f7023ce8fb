"""Zope: an object publisher with a database of its own, used over HTTP, WebDAV and XML-RPC."""

from __future__ import annotations

import io
import xmlrpc.client
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from .application import Application, Server, Site
from .environments import Environment

USER = ("admin", "secret")
PATIENCE = 60
PRODUCT = "manage_addProduct/OFSP"


def prepare(environment: Environment, folder: Path) -> None:
    """An instance as mkwsgiinstance makes it, with a file for each server."""
    environment.run(folder, "mkwsgiinstance", "-d", ".", "-u", ":".join(USER))
    here = str(folder)
    conf = folder / "etc" / "zope.conf"
    conf.write_text(conf.read_text().replace(here, ".") + "\nenable-xmlrpc on\n")
    ini = (folder / "etc" / "zope.ini").read_text().replace(f"{here}/", "")
    ini = ini.replace("port = 8080", "port = %(http_port)s")
    for server in ("waitress#main", "threadwell"):
        name = server.partition("#")[0]
        text = ini.replace("egg:waitress#main", f"egg:{server}")
        (folder / "etc" / f"{name}.ini").write_text(text)


APPLICATION = Application(
    name="Zope",
    distribution="Zope",
    requirements=["Zope[wsgi]>=5.13,<7"],
    servers={
        "threadwell": Server("runwsgi etc/threadwell.ini http_port={port}"),
        "waitress": Server("runwsgi etc/waitress.ini http_port={port}", exit_code=-15),
    },
    prepare=prepare,
)


def signed_in() -> requests.Session:
    """A session of the manager."""
    session = requests.Session()
    session.auth = USER
    return session


def test_management(site: Site) -> None:
    """The management interface: 401 without a password; add a folder, and a page template
    with its text, by its forms; the page."""
    assert requests.get(f"{site.url}/manage_main", timeout=PATIENCE).status_code == 401
    session = signed_in()
    assert "Control Panel" in session.get(f"{site.url}/manage_main", timeout=PATIENCE).text
    added = session.post(
        f"{site.url}/{PRODUCT}/manage_addFolder",
        data={"id": "folder", "title": "Ordner"},
        timeout=PATIENCE,
    )
    assert added.status_code == 200
    template = {"id": "page", "title": "Größe"}
    url = f"{site.url}/folder/manage_addProduct/PageTemplates/manage_addPageTemplate"
    assert session.post(url, data=template, timeout=PATIENCE).status_code == 200
    text = (
        '<p tal:repeat="n python: range(3)" tal:content="n">0</p><b tal:content="template/title"/>'
    )
    edited = session.post(
        f"{site.url}/folder/page/pt_editAction",
        data={"title": "Größe", "text": text, "content_type": "text/html"},
        timeout=PATIENCE,
    )
    assert edited.status_code == 200
    page = requests.get(f"{site.url}/folder/page", timeout=PATIENCE)
    assert "".join(page.text.split()) == "<p>0</p><p>1</p><p>2</p><b>Größe</b>"


def test_files(site: Site) -> None:
    """Upload 5 MB, and get them, a range, two ranges, and nothing if not modified."""
    session = signed_in()
    content = bytes(range(256)) * 20_000
    url = f"{site.url}/{PRODUCT}/manage_addFile"
    files = {"file": ("large.bin", io.BytesIO(content), "application/octet-stream")}
    sent = session.post(url, data={"id": "large"}, files=files, timeout=PATIENCE)
    assert sent.status_code == 200
    got = requests.get(f"{site.url}/large", timeout=PATIENCE)
    assert (got.content, got.headers["Content-Length"]) == (content, "5120000")
    part = requests.get(f"{site.url}/large", headers={"Range": "bytes=256-259"}, timeout=PATIENCE)
    assert (part.status_code, part.content) == (206, b"\x00\x01\x02\x03")
    parts = requests.get(f"{site.url}/large", headers={"Range": "bytes=0-1,5-6"}, timeout=PATIENCE)
    assert (parts.status_code, parts.content.count(b"Content-Range: bytes ")) == (206, 2)
    since = {"If-Modified-Since": got.headers["Last-Modified"]}
    same = requests.get(f"{site.url}/large", headers=since, timeout=PATIENCE)
    assert (same.status_code, same.content) == (304, b"")


def test_xmlrpc(site: Site) -> None:
    """XML-RPC: the title of a folder; an error for a method that needs a password."""
    with xmlrpc.client.ServerProxy(f"{site.url}/") as server:
        assert server.folder.title_or_id() == "Ordner"
        with pytest.raises(xmlrpc.client.ProtocolError, match="401 Unauthorized"):
            server.manage_delObjects(["folder"])


def test_stream(site: Site) -> None:
    """A method that writes its response in pieces."""
    session = signed_in()
    text = "<dtml-call \"RESPONSE.write(b'one ')\"><dtml-call \"RESPONSE.write(b'two')\">"
    url = f"{site.url}/{PRODUCT}/manage_addDTMLMethod"
    session.post(url, data={"id": "stream", "file": text}, timeout=PATIENCE)
    answer = requests.get(f"{site.url}/stream", timeout=PATIENCE)
    assert (answer.status_code, answer.text) == (200, "one two")


def test_at_once(site: Site) -> None:
    """20 writes to the database by 4 clients at once, with conflicts retried; WebDAV lists them."""
    session = signed_in()

    def add(number: int) -> int:
        data = {"id": f"f{number}"}
        url = f"{site.url}/folder/{PRODUCT}/manage_addFolder"
        return requests.post(url, data=data, auth=USER, timeout=PATIENCE).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(add, range(20))) == {200}
    url = f"{site.url}/folder"
    listed = session.request("PROPFIND", url, headers={"Depth": "1"}, timeout=PATIENCE)
    assert (listed.status_code, listed.text.count("<d:href>/folder/f")) == (207, 20)


def test_refusals(site: Site) -> None:
    """404 for what does not exist, 401 for what needs a role, OPTIONS and HEAD."""
    assert requests.get(f"{site.url}/no", timeout=PATIENCE).status_code == 404
    assert (
        requests.get(f"{site.url}/{PRODUCT}/manage_addFolder", timeout=PATIENCE).status_code == 401
    )
    options = requests.options(f"{site.url}/folder", timeout=PATIENCE)
    assert (options.status_code, options.headers["DAV"]) == (200, "1,2")
    head = requests.head(f"{site.url}/large", timeout=PATIENCE)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "5120000")


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
