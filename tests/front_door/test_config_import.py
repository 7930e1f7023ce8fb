"""`threadwell config import`: a file of each kind, and the file that comes of it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import cli
from threadwell.config_file import read_settings
from threadwell.config_import.gunicorn_file import HOOKS
from threadwell.worker import ServerConfig

Run = Callable[..., tuple[int, str, str]]
Import = Callable[[str, str], tuple[dict[str, Any], str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(name, text, *args)` writes a file, imports it, and gives code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, text: str, *args: str) -> tuple[int, str, str]:
        Path(name).write_text(textwrap.dedent(text))
        code = cli.main(["config", "import", name, *args])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def take(run: Run) -> Import:
    """`take(name, text)`: the settings that the reader gets, the file, and the summary."""

    def call(name: str, text: str) -> tuple[dict[str, Any], str, str]:
        code, out, err = run(name, text)
        assert code == 0
        Path("threadwell.toml").write_text(out)
        values = read_settings().values
        command = ("app", "app_dir", "factory", "interface")
        ServerConfig.from_options(**{n: v for n, v in values.items() if n not in command})
        return values, out, err

    return call


GUNICORN = """
import multiprocessing
import os

bind = ["0.0.0.0:8000", ":9000", "/run/site.sock"]
workers = multiprocessing.cpu_count() * 2 + 1
threads = int(os.environ.get("THREADS", "4"))
worker_class = "gthread"
timeout = 2 * 30
base = "/srv"
chdir = f"{base}/site"
preload_app = True
reuse_port = False
access_log_format = '%(h)s "%(r)s" %(s)s %(b)s "%({x-forwarded-for}i)s" "%(a)s"'
forwarded_allow_ips = "10.0.0.0/8,127.0.0.1"
raw_env = ["SECRET_KEY=hush"]
daemon = True
keyfile = os.environ["KEY"]
graceful_timeout = -1
wsgi_app = "site.wsgi:application"
if base:
    pidfile = "/run/x"


def post_fork(server, worker):
    raise SystemExit("executed")


raise SystemExit("executed")
"""


def test_a_gunicorn_conf_is_read_and_not_executed(take: Import) -> None:
    values, text, err = take("gunicorn.conf.py", GUNICORN)
    assert values == {
        "bind": ("0.0.0.0:8000", "0.0.0.0:9000", "unix:/run/site.sock"),
        "workers": 0,
        "threads": 4,
        "request_timeout": 60,
        "app_dir": "/srv/site",
        "preload": True,
        "log_format": '%h "%r" %>s %b "%{x-forwarded-for}i" "%{User-Agent}i"',
        "trusted_proxies": ("10.0.0.0/8", "127.0.0.1"),
        "app": "site.wsgi:application",
    }
    assert (
        "# gunicorn.conf.py:6: workers = multiprocessing.cpu_count() * 2 + 1\n"
        '# auto starts one worker for each core, each with its threads\nworkers = "auto"\n'
    ) in text
    assert "# the default of the variable THREADS, which is not read\nthreads = 4\n" in text
    assert err.splitlines() == [
        "threadwell: gunicorn.conf.py: 9 settings of gunicorn taken, 7 not taken",
        '  gunicorn.conf.py:8: worker_class = "gthread": threads serve WSGI, event loops ASGI',
        "  gunicorn.conf.py:16: raw_env ...: set it in systemd or the container",
        "  gunicorn.conf.py:17: daemon = True: leave that to systemd or Docker",
        '  gunicorn.conf.py:18: keyfile = os.environ["KEY"]: it is the variable KEY, which has'
        " no default",
        "  gunicorn.conf.py:19: graceful_timeout = -1: -1 is less than the minimum, 0",
        '  gunicorn.conf.py:22: pidfile = "/run/x": it depends on code, which is not executed',
        "  gunicorn.conf.py:25: def post_fork(...): call it where the application is imported:"
        " each worker imports it",
    ]
    for line in err.splitlines()[1:]:
        assert line.strip().partition(": ")[0] in text
    assert "hush" not in text + err


def test_the_platform_s_variables_stay_in_charge(take: Import) -> None:
    values, _, err = take(
        "gunicorn.conf.py",
        """
        import os
        bind = "0.0.0.0:" + os.getenv("PORT", "8000")
        workers = int(os.environ.get("WEB_CONCURRENCY", 2))
        """,
    )
    assert values == {}
    assert "threadwell reads the variable PORT by itself\n" in err
    assert "threadwell reads the variable WEB_CONCURRENCY by itself\n" in err


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_has_what_replaces_it(run: Run, hook: str) -> None:
    code, out, err = run("gunicorn.conf.py", f"def {hook}(*args): ...\n")
    assert code == 0
    assert err.endswith(f"  gunicorn.conf.py:1: def {hook}(...): {HOOKS[hook]}\n")
    assert HOOKS[hook] in out


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').getpid()",
        "open('/etc/passwd').read()",
        "[n for n in range(3)]",
        "'x' * 1000000000",
        "'%1000000000d' % 1",
        "'%*d' % (1000000000, 1)",
        "1 / 0",
        "undefined",
        "(lambda: 4)()",
        "os.environ['X']",
    ],
)
def test_code_is_never_run(run: Run, expression: str) -> None:
    code, out, err = run("gunicorn.conf.py", f"threads = {expression}\n")
    assert code == 0
    assert "0 settings of gunicorn taken, 1 not taken" in err
    assert "\nthreads =" not in out


def test_a_uwsgi_ini(take: Import) -> None:
    values, text, err = take(
        "uwsgi.ini",
        """
        [uwsgi]
        base = /srv/site
        chdir = %(base)
        module = site.wsgi
        callable = application
        master = true
        processes = 4
        socket = /run/site.sock
        http = :8080
        chmod-socket = 660
        harakiri = 30
        reload-on-rss = 300
        static-map = /static=%(base)/static
        env = SECRET=hush
        stats = 127.0.0.1:9191
        logto = $(LOG)
        [other]
        threads = 9
        """,
    )
    assert values == {
        "app": "site.wsgi:application",
        "app_dir": "/srv/site",
        "workers": 4,
        "bind": ("unix:/run/site.sock", "0.0.0.0:8080"),
        "unix_permissions": "660",
        "request_timeout": 30,
        "max_rss": 300 << 20,
        "static": ("/static=/srv/site/static",),
    }
    assert "# it speaks HTTP: use proxy_pass in nginx\nbind = " in text
    assert "# Not needed:\n#   uwsgi.ini:7: master = true\n#       already the default\n" in text
    assert err.splitlines() == [
        "threadwell: uwsgi.ini: 9 settings of uWSGI taken, 3 not taken",
        "  uwsgi.ini:15: env ...: set it in systemd or the container",
        "  uwsgi.ini:16: stats = 127.0.0.1:9191: write --control unix:/PATH, or --metrics-bind"
        " HOST:PORT",
        "  uwsgi.ini:17: logto = $(LOG): it has a placeholder of uWSGI",
    ]
    assert "hush" not in text + err


def test_a_procfile(take: Import) -> None:
    values, _, err = take(
        "Procfile",
        """\
        release: python manage.py migrate
        web: DEBUG=no gunicorn site.wsgi -b 0.0.0.0:$PORT -w ${WEB_CONCURRENCY:-2} -t 30 \\
            --max-requests ${MAX:-500} --user $USER_NAME --log-file -
        beat: daphne site.asgi:application
        """,
    )
    assert values == {"app": "site.wsgi", "request_timeout": 30, "max_requests": 500}
    assert err.splitlines() == [
        "threadwell: Procfile: 3 settings of gunicorn taken, 6 not taken",
        "  Procfile:2: DEBUG ...: set the variable where the server is started",
        "  Procfile:2: -b 0.0.0.0:$PORT: threadwell reads the variable PORT by itself",
        "  Procfile:2: -w ${WEB_CONCURRENCY:-2}: threadwell reads the variable WEB_CONCURRENCY"
        " by itself",
        "  Procfile:2: --user $USER_NAME: it is the variable USER_NAME, which is not read",
        "  Procfile:2: --log-file -: messages go to standard error",
        "  Procfile:4: daphne site.asgi:application: it is another command line; one file is"
        " for one",
    ]


COMMAND_LINES = [
    (
        "exec uvicorn --host ::1 --port 80 site.asgi:app --workers 4 --log-level trace"
        " --lifespan on --ssl-keyfile-password hush",
        {"bind": ("[::1]:80",), "app": "site.asgi:app", "workers": 4, "lifespan": "on"},
    ),
    (
        'CMD ["granian", "--interface", "asgi", "site.asgi:app", "--blocking-threads", "8",'
        ' "--workers-max-rss", "300", "--http1-header-read-timeout", "30000", "--no-ws"]',
        {
            "interface": "asgi",
            "app": "site.asgi:app",
            "threads": 8,
            "max_rss": 300 << 20,
            "head_timeout": 30,
        },
    ),
    ("granian --interface rsgi site:app", {"app": "site:app"}),
    (
        "ExecStart=/srv/venv/bin/waitress-serve --listen=*:8080 --threads 6 --call site:create",
        {"bind": ("0.0.0.0:8080",), "threads": 6, "factory": True, "app": "site:create"},
    ),
    (
        "/usr/bin/python3 -m hypercorn site.asgi:app --bind unix:/run/s --keep-alive 5 && echo ok",
        {"app": "site.asgi:app", "bind": ("unix:/run/s",), "keep_alive": 5},
    ),
    ("daphne -b 0.0.0.0 -p 80 site.asgi:app", {"app": "site.asgi:app", "bind": ("0.0.0.0:80",)}),
    (
        "gunicorn -w 3 --threads 4 --preload --reload -c conf.py --nonsense site",
        {"workers": 3, "threads": 4, "preload": True, "app": "site"},
    ),
    (
        "uwsgi --http 127.0.0.1:80 --wsgi-file site.py -p 4 -M --unknown 7",
        {"app": "site.py", "workers": 4, "bind": ("127.0.0.1:80",)},
    ),
]


@pytest.mark.parametrize(("line", "wanted"), COMMAND_LINES)
def test_a_command_line(take: Import, line: str, wanted: dict[str, Any]) -> None:
    values, text, err = take("start.sh", f"#!/bin/sh\nset -e\n{line}\n")
    assert values == wanted
    assert "hush" not in text + err


def test_a_file_is_not_overwritten(run: Run) -> None:
    code, out, err = run("Procfile", "web: gunicorn site\n", "--output", "threadwell.toml")
    assert (code, out) == (0, "")
    assert err == "threadwell: Procfile: 1 settings of gunicorn taken, 0 not taken\n"
    assert read_settings().values == {"app": "site"}
    code, out, err = run("Procfile", "web: gunicorn other\n", "-o", "threadwell.toml")
    assert (code, out) == (2, "")
    assert err == ("threadwell: --output: threadwell.toml exists; add --overwrite to replace it\n")
    assert read_settings().values == {"app": "site"}
    code, _, _ = run("Procfile", "web: gunicorn other\n", "-o", "threadwell.toml", "--overwrite")
    assert code == 0
    assert read_settings().values == {"app": "other"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "notes.txt",
            "nothing\n",
            "notes.txt: it is no gunicorn.conf.py, has no section [uwsgi], and no command line of"
            " gunicorn, uvicorn, granian, hypercorn, waitress, daphne, uWSGI",
        ),
        ("gunicorn.conf.py", "bind = \n", "gunicorn.conf.py:1: it is not Python: invalid syntax"),
        ("gunicorn.conf.py", "x = 1\n", "gunicorn.conf.py: it has no setting of gunicorn"),
    ],
)
def test_a_file_of_no_kind(run: Run, name: str, text: str, problem: str) -> None:
    assert run(name, text) == (2, "", f"threadwell: {problem}\n")
