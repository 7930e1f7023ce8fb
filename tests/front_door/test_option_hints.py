"""Who comes from another server: its flags, and what platforms set."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from threadwell import cli
from threadwell.command_options import flags_of
from threadwell.config_file import Settings, with_platform
from threadwell.foreign_options import SERVERS, Foreign
from threadwell.worker import OPTIONS, ConfigError

from ..helpers.foreign_flags import FLAGS

EACH = [
    pytest.param(server, flag, each, id=f"{server} {flag}")
    for server, flags in SERVERS.items()
    for flag, each in flags.items()
]


@pytest.fixture
def own_flags() -> set[str]:
    return set(flags_of(cli._command()))


@pytest.mark.parametrize(("server", "flag", "each"), EACH)
def test_what_is_said_to_who_types_it(
    server: str,
    flag: str,
    each: Foreign,
    own_flags: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if flag in own_flags:  # it is known beside others of that server only
        return
    value = ["5"] if each.takes_value else []
    assert cli.main(["app", flag, *value]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"threadwell: {flag}: not known here; type: threadwell app")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("server", "flag", "each"), EACH)
def test_an_entry_says_what_to_write_or_why_not(
    server: str, flag: str, each: Foreign, own_flags: set[str]
) -> None:
    assert each.ours in own_flags if each.ours else each.note
    for word in each.note.split():
        assert not word.startswith("--") or word.rstrip(",:") in own_flags


@pytest.mark.parametrize("server", FLAGS)
def test_every_flag_of_other_servers_is_known(server: str, own_flags: set[str]) -> None:
    assert not set(FLAGS[server]) - own_flags - set(SERVERS[server])


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (
            "shop.wsgi -w 4 --bind=0.0.0.0:80 --timeout 60 -k gthread --preload",
            "--timeout, -k: not known here; type: threadwell shop.wsgi -w 4 --bind 0.0.0.0:80"
            " --request-timeout 60 --preload (-k: threads serve WSGI, event loops ASGI)",
        ),
        (
            "-t 60 --keepalive 5 -w4 shop.wsgi",
            "-t, --keepalive: not known here; type: threadwell --request-timeout 60 --keep-alive 5"
            " -w 4 shop.wsgi",
        ),
        (
            "app:app --host 0.0.0.0 --port 80 --ws-max-size 5 --no-access-log --header 'a:b c'",
            "--host, --port, --ws-max-size, --no-access-log: not known here; type: threadwell"
            " app:app --limit-ws-message 5 --header 'a:b c' --bind 0.0.0.0:80 (--no-access-log:"
            " already the default)",
        ),
        ("app --port 80", "--port: not known here; type: threadwell app --bind 127.0.0.1:80"),
        ("app --host ::1", "--host: not known here; type: threadwell app --bind '[::1]:8000'"),
        (
            "app:app --interface wsgi --blocking-threads 4 --workers-lifetime 60 --no-ws",
            "--blocking-threads, --workers-lifetime, --no-ws: not known here; type: threadwell"
            " app:app --interface wsgi --threads 4 --max-age 60 (--no-ws: an application without"
            " WebSockets refuses them)",
        ),
        (
            "site.asgi:app --websocket_timeout 5 -p 80",
            "--websocket_timeout, -p: not known here; type: threadwell site.asgi:app --bind"
            " 127.0.0.1:80 (--websocket_timeout: a WebSocket has no time limit)",
        ),
        (
            "app --workers-max-rss 300 --uds /run/s",
            "--workers-max-rss, --uds: not known here; type: threadwell app --max-rss 300M --bind"
            " unix:/run/s (--max-rss: in bytes here; 500M is 500 MiB)",
        ),
        (
            "shop.wsgi -k gevent --daemon",
            "-k, --daemon: not known here; type: threadwell shop.wsgi (-k: threads serve WSGI,"
            " event loops ASGI; --daemon: leave that to systemd or Docker)",
        ),
        ("app --timeout", "--timeout: not known here; type: threadwell app --request-timeout"),
    ],
)
def test_the_whole_line_is_answered(
    typed: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(shlex.split(typed)) == 2
    assert capsys.readouterr().err == f"threadwell: {answer}\n"


def test_a_flag_that_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["app", "--timeout", "5", "--nonsense"]) == 2
    assert capsys.readouterr().err == (
        "threadwell: No such option: --nonsense; see threadwell --help\n"
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--thrads", "; did you mean --threads?"),
        ("--worker", "; did you mean --workers?"),
        ("--color", ""),
        ("--cluster", ""),
        ("--prefork", ""),
    ],
)
def test_only_what_is_near_is_offered(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["app", typed, "5"]) == 2
    line = f"threadwell: No such option: {typed}{meant}; see threadwell --help\n"
    assert capsys.readouterr().err == line


def test_short_flags(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "-b", "9000", "-w", "3", "-t", "5"]) == 0
    shown = capsys.readouterr().out
    for line in ('bind = ["9000"]', "workers = 3", "threads = 5"):
        assert f"{line}  # command line" in shown
    assert cli.main(["-V"]) == 0
    assert capsys.readouterr().out.startswith("threadwell ")


def workers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    assert cli.main(["config", "show", *args]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("workers")]
    return line


def test_the_platform_s_number_of_workers_is_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert workers(capsys, monkeypatch) == "workers = 3  # WEB_CONCURRENCY"
    (tmp_path / "threadwell.toml").write_text("workers = 4")
    assert workers(capsys, monkeypatch) == "workers = 4  # threadwell.toml:1"
    monkeypatch.setenv("THREADWELL_WORKERS", "5")
    assert workers(capsys, monkeypatch) == "workers = 5  # THREADWELL_WORKERS"
    assert workers(capsys, monkeypatch, "--workers", "6") == "workers = 6  # command line"


def test_a_platform_may_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY: 'many' is not a whole number or auto"):
        with_platform(Settings())
    assert with_platform(Settings(None, {"workers": 2})).values == {"workers": 2}


@pytest.mark.parametrize(("variables", "told"), [({}, 1), ({"THREADWELL_WORKERS": "2"}, None)])
def test_a_reload_does_not_mind_the_platform(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    told: int | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen: list[int] = []
    monkeypatch.setattr(
        cli, "run_reloader", lambda config, _: seen.append(config.worker_count()) or 0
    )
    code = cli.main(["app", "--reload"])
    if told is None:
        assert code == 2
        assert "THREADWELL_WORKERS: --reload restarts a single process" in capsys.readouterr().err
    else:
        assert code == 0
        assert seen == [told]


def test_no_flag_of_ours_is_thought_foreign() -> None:
    ours = {option.flag for option in OPTIONS}
    for flags in SERVERS.values():
        assert not ours & set(flags)


# ---- Platforms, and slips of the pen -------------------------------------------------------


def test_the_platform_s_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bind(*args: str) -> str:
        assert cli.main(["config", "show", *args]) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line for line in lines if line.startswith("bind"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "5000")
    assert bind() == 'bind = ["0.0.0.0:5000"]  # PORT'
    assert bind("-b", "9000") == 'bind = ["9000"]  # command line'
    (tmp_path / "threadwell.toml").write_text("bind = '7000'")
    assert bind() == 'bind = ["7000"]  # threadwell.toml:1'


@pytest.mark.parametrize("port", ["x", "0", "70000", "-1"])
def test_a_port_that_is_none(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(ConfigError, match=f"^PORT: '{port}' is not a port$"):
        with_platform(Settings())


def test_a_reload_listens_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "5000")
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        cli, "run_reloader", lambda config, _: seen.append(config.bind.addresses) or 0
    )
    assert cli.main(["app", "--reload"]) == 0
    assert seen == [("127.0.0.1:5000",)]


def test_a_variable_that_sets_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "run_reloader", lambda *_: 0)
    for name in ("THREADWELL_THREAD", "THREADWELL_HOME", "THREADWELL_BACKLOG", "THREADWELL_APP"):
        monkeypatch.setenv(name, "5")
    assert cli.main(["--reload"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "threadwell: THREADWELL_HOME is set, and there is no such option",
        "threadwell: THREADWELL_THREAD is set, and there is no such option; did you mean"
        " THREADWELL_THREADS?",
    ]


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["serve", "m:app"], "serve: leave it out, and write `threadwell m:app`"),
        (["run", "m:app"], "run: leave it out, and write `threadwell m:app`"),
        (["chek", "m:app"], "chek: there is none; did you mean `threadwell check`?"),
        (["confg"], "confg: there is none; did you mean `threadwell config`?"),
    ],
)
def test_a_command_that_is_none(
    args: list[str],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == 2
    assert capsys.readouterr().err == f"threadwell: {answer}; see threadwell --help\n"
