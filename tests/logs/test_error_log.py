"""The server's messages as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from threadwell.worker.logs.error_log import JSONFormatter
from threadwell.worker.request_id import RequestIdFilter, enter
from threadwell.worker.system.standard_streams import TextFormatter

from ..helpers.supervised import Supervised


def record(message: str, *args: object, **attributes: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.ERROR, "shop.py", 5, message, args, None)
    made.created, made.msecs = 1000000000.25, 250.0
    vars(made).update(attributes)
    return made


def test_the_fields() -> None:
    line = JSONFormatter().format(record("%s is\n%r", "a", "\u2028é"))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2001-09-09T01:46:40.250+00:00",
        "level": "ERROR",
        "logger": "shop",
        "message": "a is\n'\\u2028é'",
        "process": record("").process,
        "thread": "MainThread",
    }


def test_a_traceback_and_dropped_messages() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info(), stack_info="Stack:", dropped=3)
    fields = json.loads(JSONFormatter().format(made))
    assert fields["exception"].startswith("Traceback (most recent call last):\n")
    assert fields["exception"].endswith("\nValueError: why")
    assert (fields["stack"], fields["dropped"]) == ("Stack:", 3)


def test_the_request_id_of_the_context_or_of_the_record() -> None:
    import contextvars

    def formatted(made: logging.LogRecord) -> Any:
        return json.loads(JSONFormatter().format(made)).get("request_id")

    def within() -> None:
        enter("here")
        assert formatted(record("")) == "here"
        made = record("")
        RequestIdFilter().filter(made)
        elsewhere.append(made)

    elsewhere: list[logging.LogRecord] = []
    contextvars.copy_context().run(within)
    assert formatted(record("")) is None
    assert formatted(elsewhere[0]) == "here"  # as a handler with a queue has it


def test_text_says_what_was_dropped() -> None:
    formatter = TextFormatter("%(levelname)s %(message)s")
    assert formatter.format(record("a")) == "ERROR a"
    said = formatter.format(record("a", dropped=2))
    assert said == "(2 messages before this one were dropped)\nERROR a"


APP = """
import logging
from threadwell.worker.request_id import RequestIdFilter
from threadwell.worker.logs.error_log import JSONFormatter

handler = logging.StreamHandler()
handler.setFormatter(JSONFormatter())
logging.getLogger("shop").addHandler(handler)

def app(environ, start_response):
    logging.getLogger("shop").warning("sold out")
    raise ZeroDivisionError("why")
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_message_of_the_command_is_json(tmp_path: Path, workers: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    arguments = ["app:app", "--bind", "127.0.0.1:0", "--workers", workers]
    arguments += ["--error-log-format", "json", "--request-id-header", "X-Id"]
    server = Supervised(tmp_path, *arguments)
    try:
        with pytest.raises(OSError, match="500"):
            server.get("/a")
        server.await_line("sold out")
        server.await_line("ZeroDivisionError")
        assert server.end() == 0
    finally:
        server.close()
    lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    (ours,) = [each for each in lines if each["logger"] == "threadwell" and "exception" in each]
    (sold_out,) = [each for each in lines if each["logger"] == "shop"]
    assert ours["message"] == f"The application failed on GET /a [{ours['request_id']}]"
    assert ours["exception"].endswith("ZeroDivisionError: why")
    assert sold_out["request_id"] == ours["request_id"]
    # the others are the start message, which is for people
    others = [line for line in server.lines if not line.startswith("{")]
    assert not any("Traceback" in line or "WARNING" in line for line in others)
