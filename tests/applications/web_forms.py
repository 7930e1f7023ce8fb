"""Sessions with HTML forms, as a browser without scripts has them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import requests

PATIENCE = 60


class _Forms(HTMLParser):
    """The forms of a page: their attributes, and the values that they would send."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str], dict[str, str]]] = [({}, {})]
        self._select = self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        values = self.found[-1][1]
        name = given.get("name", "")
        if tag == "form":
            self.found.append((given, {}))
        elif tag == "input" and name and given.get("type") not in {"submit", "file", "button"}:
            if given.get("type") not in {"checkbox", "radio"} or "checked" in given:
                values[name] = given.get("value", "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in given:
            values[self._select] = given.get("value", "")
        elif tag == "textarea" and name:
            self._text = name
            values[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.found.append(({}, {}))
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text:
            self.found[-1][1][self._text] += data.removeprefix("\n")


class Browser(requests.Session):
    """A session that fills in forms."""

    def submit(
        self, url: str, field: str, *, files: Any = None, **values: str
    ) -> requests.Response:
        """Get the page `url`, and send its first form that has `field`, with `values` for its own.

        A value's name has `__` for `-`. Returns the answer, after redirects.
        """
        page = self.get(url, timeout=PATIENCE)
        assert page.status_code == 200, page.text
        forms = _Forms()
        forms.feed(page.text)
        given, fields = next(form for form in forms.found if field in form[1])
        changed = {name.replace("__", "-"): value for name, value in values.items()}
        return self.post(
            urljoin(page.url, given.get("action", "")),
            {**fields, **changed},
            files=files,
            headers={"Referer": page.url},
            timeout=PATIENCE,
        )
