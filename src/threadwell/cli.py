"""The command `threadwell`: serves the application that its first argument names.

Most of its options are made from the option table (`OPTIONS`).
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .adapters import as_app, as_sync_app
from .adapters.detect import is_django_debug
from .app_loader import AppError, LoadedApp, app_folder, has_default_app, load_app
from .command_options import (
    GroupedCommand,
    GroupedOption,
    app_options,
    complete,
    ctl_command,
    flags_of,
    from_table,
    import_command,
    long_flags_of,
    reload_options,
    spelled_as_flag,
    top_command,
    with_source,
)
from .config_file import CONCURRENCY, PORT, read_settings, show, with_platform
from .environment import PREFIX, variable_of, warn_of_unknown_variables
from .process_setup import DEVELOPMENT_LIMITS, USAGE_ERROR, open_missing_streams, say
from .single_process import checked_config, run_reloader, run_server
from .version import __version__
from .worker import (
    OPTIONS,
    ConfigError,
    Hybrid,
    Request,
    Response,
    ServerConfig,
    app_kind,
    nearest,
)
from .worker.errors import StartFailed
from .worker.messages import Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The exit code if the worker processes end before they are ready and give no reason.
START_FAILED = 3
_INTERRUPTED = 128 + signal.SIGINT

_HELP = """Serve a WSGI application or a SyncApp on threads, an ASGI application on an event loop.

APP is module:app, module:create_app("x", debug=False), or the path of a file, with or without
:app behind it. Left out, wsgi.py or app.py of the current directory is served.
"""
_EPILOG = (
    "A SIZE may end in K, M or G. Every option can be set in the environment too, such as"
    " THREADWELL_THREADS for --threads, and in threadwell.toml or [tool.threadwell] of"
    " pyproject.toml. `threadwell check` checks the application and the settings"
    " without serving; `threadwell config show` shows the settings and their sources."
)
_CHECK_HELP = """Import the application and check the settings, without serving.

Exits with 0 if all is well, else with 2 and a line that names the problem.
"""
COMMANDS = ("check", "config", "ctl", "top")
# The lines of the help and the words of shell completion.
_COMMAND_LINES = (
    ("check", "Import the application and check the settings, without serving."),
    ("config show", "Print the settings, with the source of each."),
    ("config schema", "Print the JSON Schema of threadwell.toml."),
    ("config import FILE", "Write a threadwell.toml from the settings of another server."),
    ("ctl PATH VERB", "Inspect and control a running server."),
    ("top PATH", "Show a live view of a running server."),
)
# What most users type: `--help` shows these, `--help-all` every option.
COMMON = (
    "app_dir", "config", "bind", "threads", "workers", "asgi_app", "certfile", "keyfile",
    "trusted_proxies", "static", "access_log", "reload",
)  # fmt: skip
_COMPLETION = "_THREADWELL_COMPLETE"
_SCHEMA_HELP = "Print the JSON Schema of threadwell.toml, with which editors check it."
# The short flags that gunicorn's users type, and one for threads.
_SHORT = {"bind": "-b", "workers": "-w", "threads": "-t"}
_SHOW_HELP = """Print the settings as a threadwell.toml, with the source of each."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command with `args`, by default those of the process, and return its exit code.

    The code is 0 after a signal to stop, 2 after a usage error, which prints a line on standard
    error, and 3 if the worker processes ended before they were ready and gave no reason.
    """
    open_missing_streams()
    try:
        if instruction := os.environ.get(_COMPLETION):
            complete(instruction, _COMPLETION, _command_to_complete, _COMMAND_LINES)
            raise SystemExit(0)
        name, command, rest = _select_command(sys.argv[1:] if args is None else list(args))
        code = command.main(args=rest, prog_name=name, standalone_mode=False)
    except click.Abort:
        return _INTERRUPTED
    except AppError as error:
        return _fail(str(error), trace=error.trace)
    except click.NoSuchOption:
        from .option_hints import hint_for  # with the flags of all other servers

        return _fail(hint_for(rest, flags_of(command), name))
    except click.ClickException as error:
        return _fail(f"{error.format_message().rstrip('.')}; see {_help_for(error)}")
    except ConfigError as error:
        return _fail(spelled_as_flag(str(error)))
    except MemoryError:
        return _fail("the server cannot start: there is not enough memory")
    except StartFailed as error:
        code = START_FAILED if error.loaded else USAGE_ERROR
        return _fail(spelled_as_flag(str(error)), code, error.trace)
    return int(code or 0)


def _select_command(args: list[str]) -> tuple[str, click.Command, list[str]]:
    """The name of the command, the command, and its arguments.

    Only a first argument that is exactly the name of a command selects it. A module of that name
    can be served as `check:app` or `check.py`.
    """
    if args[:1] == ["check"]:
        return "threadwell check", _command(_check, _CHECK_HELP), args[1:]
    if args[:2] == ["config", "show"]:
        return "threadwell config show", _command(_show, _SHOW_HELP), args[2:]
    if args[:2] == ["config", "schema"]:
        command = click.Command("schema", callback=_schema, help=_SCHEMA_HELP)
        return "threadwell config schema", command, args[2:]
    if args[:2] == ["config", "import"]:
        from .config_import import command as config_import  # most processes do not need it

        flags = config_import.Flags(flags_of(_command()), long_flags_of(_command()))
        command = import_command(config_import.importer(flags))
        return "threadwell config import", command, args[2:]
    if args[:1] == ["ctl"]:
        from . import ctl  # most processes do not need it

        return "threadwell ctl", ctl_command(ctl.run, ctl.verbs_text()), args[1:]
    if args[:1] == ["top"]:
        from . import top

        return "threadwell top", top_command(top.run), args[1:]
    if args[:1] in (["serve"], ["run"], ["start"]) and len(args) > 1 and args[1][:1] != "-":
        raise click.UsageError(f"{args[0]}: leave it out, and write `threadwell {args[1]}`")
    unknown = args[0] if args and args[0] not in COMMANDS and not _is_there(args[0]) else ""
    if unknown and (near := nearest(unknown, COMMANDS)):
        raise click.UsageError(f"{unknown}: there is none; did you mean `threadwell {near}`?")
    if args[:1] == ["config"]:
        raise click.UsageError(
            "config: write `threadwell config show`, `threadwell config schema` or `threadwell"
            " config import FILE`, or `threadwell config:app` for a module"
        )
    return "threadwell", _command(), args


def _command_to_complete(words: list[str]) -> tuple[str, click.Command, list[str]]:
    try:
        return _select_command(words)
    except click.ClickException:
        return "threadwell", _command(), words


def _is_there(word: str) -> bool:
    """Whether `word` may be a module, a file or an option."""
    may_be = word.startswith("-") or ":" in word or "." in word
    return may_be or os.path.exists(word) or os.path.exists(f"{word}.py")


def _help_for(error: click.ClickException) -> str:
    """The command whose help explains what `error` was about."""
    ctx = getattr(error, "ctx", None)
    name = ctx.command_path if ctx is not None else "threadwell"
    return f"{name} --help"


def _fail(message: str, code: int = USAGE_ERROR, trace: str = "") -> int:
    sys.stderr.write(f"{trace}threadwell: {' '.join(message.split())}\n")
    return code


# ---- The command and its options ----------------------------------------------------------


def _command(callback: Callable[..., int] | None = None, text: str = _HELP) -> click.Command:
    """The command that serves, or one with the same options that calls `callback`."""
    return GroupedCommand(
        name="threadwell",
        params=[
            *app_options(),
            *(from_table(option, _SHORT.get(option.name)) for option in OPTIONS),
            *(() if callback else reload_options()),
            _config_option(),
            _version_option(),
        ],
        callback=_with_sources(callback or _serve),
        help=text,
        epilog=_EPILOG,
        common=COMMON,
        commands=() if callback else _COMMAND_LINES,
        context_settings={
            "auto_envvar_prefix": PREFIX,
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
        },
    )


def _with_sources(callback: Callable[..., int]) -> Callable[..., int]:
    """`callback`, whose `ConfigError` names the source of the value."""

    def call(**options: Any) -> int:
        try:
            return callback(**options)
        except ConfigError as error:
            raise ConfigError(with_source(str(error), click.get_current_context())) from None

    return call


def _config_option() -> click.Option:
    def read(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
        if not ctx.resilient_parsing:
            ctx.obj = with_platform(read_settings(path))
            ctx.default_map = ctx.obj.values

    return GroupedOption(
        ["--config"],
        is_eager=True,  # It sets the defaults of the other options.
        expose_value=False,
        callback=read,
        type=click.Path(),
        metavar="FILE",
        help="Settings in TOML."
        "  [default: threadwell.toml, or [tool.threadwell] of pyproject.toml]",
        group="app",
    )


def _version_option() -> click.Option:
    def show(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(f"threadwell {__version__}")
            ctx.exit()

    return click.Option(
        ["--version", "-V"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,
        callback=show,
        help="Show the version and exit.",
    )


# ---- Serving ------------------------------------------------------------------------------


def _serve(
    app: str | None,
    interface: str,
    asgi_app: str | None,
    app_dir: str,
    factory: bool,
    reload: bool,
    reload_dir: tuple[str, ...],
    reload_include: tuple[str, ...],
    reload_exclude: tuple[str, ...],
    reload_extra: tuple[str, ...],
    **options: Any,
) -> int:
    if reload:
        if _is_default("static_refresh"):
            options["static_refresh"] = True
        options |= {name: n for name, n in DEVELOPMENT_LIMITS.items() if _is_default(name)}
        if _is_from_platform("workers"):
            options["workers"] = 1
        if _is_from_platform("bind"):  # a server for development is for this machine only
            options["bind"] = [each.replace("0.0.0.0", "127.0.0.1") for each in options["bind"]]
    files_only = _use_files_only(app, app_dir, options)
    config = checked_config(options)
    warn_of_unknown_variables(click.get_current_context().command.params)
    notes = [f"The address comes from the variable {PORT}"] if _is_from_platform("bind") else []
    inherited = None

    def load() -> Loaded:
        if files_only:
            return _files_alone(config)
        found = load_app(app, app_dir, factory=factory)
        beside = load_app(asgi_app, app_dir) if asgi_app is not None else None
        kind, served = _served(found, interface, beside, config.processes.needs_supervisor)
        return Loaded(served, found.name, kind)

    if reload:
        from .reload import Inherited, WatchedFiles

        if config.processes.needs_supervisor:
            option = config.processes.reason_for_supervisor
            raise ConfigError(
                f"{option}: --reload restarts a single process; leave one of them out"
            )
        roots = _require_folders(reload_dir) or [app_dir, *app_folder(app, app_dir)]
        watched = WatchedFiles(roots, ("*.py", *reload_include), reload_exclude, reload_extra)
        inherited = Inherited.take()
        if inherited is None:
            return run_reloader(config, watched)
    elif given := [*reload_dir, *reload_include, *reload_exclude, *reload_extra]:
        raise ConfigError(f"{given[0]}: this is for --reload, which was not given; add it")
    if config.processes.needs_supervisor:
        from .multi_process import run_workers

        return run_workers(load, config, notes)
    with inherited.reporting_errors() if inherited is not None else nullcontext():
        loaded = load()
        return run_server(loaded.app, config, loaded.name, loaded.kind, inherited, notes)


def _check(
    app: str | None,
    interface: str,
    asgi_app: str | None,
    app_dir: str,
    factory: bool,
    **options: Any,
) -> int:
    files_only = _use_files_only(app, app_dir, options)
    config = checked_config(options)
    if files_only:
        say(f"{_files_alone(config).name} and its settings are fine")
        return 0
    loaded = load_app(app, app_dir, factory=factory)
    beside = load_app(asgi_app, app_dir) if asgi_app is not None else None
    kind, _ = _served(loaded, interface, beside, multiprocess=False)
    say(f"{loaded.name} ({kind}) and its settings are fine")
    return 0


def _use_files_only(app: str | None, app_dir: str, options: dict[str, Any]) -> bool:
    """Whether only files are served: with --static, and without an application.

    Then a folder is answered with its index.html, unless `options` say otherwise.
    """
    if app is not None or not options["static"] or has_default_app(app_dir):
        return False
    if _is_default("static_index"):
        options["static_index"] = "index.html"
    return True


def _files_alone(config: ServerConfig) -> Loaded:
    return Loaded(_no_such_file, " ".join(config.static.mounts), "static files")


def _no_such_file(_request: Request) -> Response:
    return Response(404, [("Content-Type", "text/plain")], b"Not Found\n")


def _show(**options: Any) -> int:
    ctx = click.get_current_context()
    sources = {}
    for name in options:
        match ctx.get_parameter_source(name):
            case ParameterSource.COMMANDLINE:
                sources[name] = "command line"
            case ParameterSource.ENVIRONMENT:
                sources[name] = variable_of(name)
            case ParameterSource.DEFAULT_MAP:
                sources[name] = ctx.obj.places[name]
    names = {option.name for option in OPTIONS}
    config = checked_config({name: options[name] for name in options if name in names})
    say(show(config, sources))
    return 0


def _schema() -> int:
    from .config_schema import schema

    say(schema())
    return 0


def _is_default(name: str) -> bool:
    """Whether no source sets the option `name`."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.DEFAULT


def _is_from_platform(name: str) -> bool:
    """Whether only the hosting platform (`WEB_CONCURRENCY`, `PORT`) sets the option `name`."""
    ctx = click.get_current_context()
    source = ctx.get_parameter_source(name)
    return source is ParameterSource.DEFAULT_MAP and ctx.obj.places[name] in (CONCURRENCY, PORT)


def _require_folders(folders: tuple[str, ...]) -> list[str]:
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"--reload-dir: there is no folder {folder}; check the path")
    return list(folders)


def _served(
    loaded: LoadedApp, interface: str, beside: LoadedApp | None, multiprocess: bool
) -> tuple[str, Any]:
    """The description of `loaded` for the start message, and what a `Server` takes for it.

    `beside` is the application of `--asgi`. Raises `AppError` if the two do not fit together.
    """
    try:
        kind = app_kind(loaded.app) if interface == "auto" else interface
        debug = ", DEBUG is on" if is_django_debug() else ""
        if beside is None:
            return kind + debug, as_app(loaded.app, interface, multiprocess=multiprocess)
        if kind == "asgi":
            raise TypeError("--asgi goes beside a WSGI application or a SyncApp; leave it out")
        sync_app = as_sync_app(loaded.app, interface, multiprocess=multiprocess)
        hybrid = Hybrid(sync_app, as_app(beside.app, "asgi"))
        return f"{kind}, with {beside.name}{debug}", hybrid
    except TypeError as error:
        message = str(error)
        known = (loaded.name, beside.name) if beside is not None else (loaded.name,)
        raise AppError(
            message if message.startswith(known) else f"{loaded.name}: {message}"
        ) from None
