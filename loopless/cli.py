"""The command `loopless`: serves the application that it is given the name of.

The options are those of the option table, so that none is written twice.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from .adapters import as_app, as_sync_app
from .apps import AppError, LoadedApp, app_folder, load_app
from .banner import start_message
from .binding import open_sockets
from .config_file import read_settings, show
from .process import check_files, configure_logging, raise_descriptor_limit, say
from .reload import GRACE, Inherited, Reloader, Watched, this_command
from .version import __version__
from .worker import (
    OPTIONS,
    ConfigError,
    Option,
    Server,
    ServerConfig,
    StartupError,
    app_kind,
)
from .worker.listener import parse_bind
from .worker.server import Hybrid, Served
from .worker.supervisor import Loaded, StartFailed
from .workers import run_workers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic before click 8.4

USAGE_ERROR = 2
START_FAILED = 3
_INTERRUPTED = 128 + signal.SIGINT

_GROUPS = {
    "app": "Application",
    "bind": "Where",
    "workers": "Threads",
    "processes": "Processes",
    "asgi": "ASGI",
    "tls": "TLS",
    "log": "Logs",
    "limits": "Limits",
    "timeouts": "Timeouts",
    "reload": "Development",
}
_METAVARS = {"bytes": "SIZE", "seconds": "SECONDS", "bytes per second": "BYTES"}

_HELP = """Serve a WSGI application or a SyncApp on threads, without an event loop.

APP is module:app, module:create_app("x", debug=False), or the path of a file, with or without
:app behind it. Left out, wsgi.py or app.py of the current directory is served.
"""
_EPILOG = (
    "A SIZE may end in K, M or G. Every option can be set in the environment too, such as"
    " LOOPLESS_THREADS for --threads, and in loopless.toml or [tool.loopless] of pyproject.toml."
    " `loopless check` looks whether all is well, without serving; `loopless config show` says"
    " what is set, and where."
)
_CHECK_HELP = """Import the application and check the settings, without serving.

Ends with 0 if all is well, else with 2 and a line that says what is not.
"""
_SHOW_HELP = """Print the settings as a loopless.toml, and where each comes from."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command with `args`, or those of the process, and return its exit code.

    0 when it was told to stop; 2, after a line on standard error, for a mistake of the user's; 3
    when the worker processes ended before they were ready, without saying why.
    """
    try:
        name, command, rest = _chosen(sys.argv[1:] if args is None else list(args))
        code = command.main(args=rest, prog_name=name, standalone_mode=False)
    except click.Abort:
        return _INTERRUPTED
    except AppError as error:
        sys.stderr.write(error.trace)
        return _fail(str(error))
    except click.ClickException as error:
        return _fail(f"{error.format_message().rstrip('.')}; see loopless --help")
    except ConfigError as error:
        return _fail(spelled_as_flag(str(error)))
    except StartFailed as error:
        sys.stderr.write(error.trace)
        return _fail(spelled_as_flag(str(error)), START_FAILED if error.loaded else USAGE_ERROR)
    return int(code or 0)


def _chosen(args: list[str]) -> tuple[str, click.Command, list[str]]:
    """Which command is meant, and its arguments.

    Only a first argument that is exactly the name of a command is one; a module of that name is
    served as `check:app` or `check.py`.
    """
    if args[:1] == ["check"]:
        return "loopless check", _command(_check, _CHECK_HELP), args[1:]
    if args[:2] == ["config", "show"]:
        return "loopless config show", _command(_show, _SHOW_HELP), args[2:]
    if args[:1] == ["config"]:
        raise click.UsageError(
            "config: write `loopless config show`, or `loopless config:app` for a module"
        )
    return "loopless", _command(), args


def _fail(message: str, code: int = USAGE_ERROR) -> int:
    sys.stderr.write(f"loopless: {' '.join(message.split())}\n")
    return code


# ---- The command and its options ----------------------------------------------------------


class _Value(_ParamType):
    """The value of an option of the table."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = option.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        del param
        try:
            converted = self.option.convert(value)
        except ConfigError as error:
            raise click.UsageError(spelled_as_flag(str(error)), ctx) from None
        return converted[0] if self.option.multiple else converted

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del ctx, param
        words = (*self.option.choices, *filter(None, (self.option.word,)))
        return [CompletionItem(c) for c in words if c.startswith(incomplete)]


class GroupedOption(click.Option):
    """An option that stands under the heading `group` in the help."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has a section for each group of options."""

    #: Of options that say no other.
    default_group = "app"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in _GROUPS.values()}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = _GROUPS[getattr(param, "group", self.default_group)]
                sections[title].append(record)
        for title, records in sections.items():
            if not records:
                continue
            with formatter.section(title):
                formatter.write_dl(records)


def _command(callback: Callable[..., int] | None = None, text: str = _HELP) -> click.Command:
    """The command that serves; or another with its options, which are checked the same way."""
    return GroupedCommand(
        name="loopless",
        params=[
            *_app_options(),
            *map(from_table, OPTIONS),
            *(() if callback else _reload_options()),
            _config_option(),
            _version_option(),
        ],
        callback=callback or _run,
        help=text,
        epilog=_EPILOG,
        context_settings={
            "auto_envvar_prefix": "LOOPLESS",
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
        },
    )


def _app_options() -> list[click.Parameter]:
    return [
        click.Argument(["app"], required=False, envvar="LOOPLESS_APP"),
        GroupedOption(
            ["--interface"],
            type=click.Choice(["auto", "wsgi", "sync", "asgi"]),
            default="auto",
            help="What the application is, where looking at it does not tell.  [default: auto]",
            group="app",
        ),
        GroupedOption(
            ["--asgi", "asgi_app"],
            metavar="APP",
            help="An ASGI application beside APP, for WebSockets and what a SyncApp leaves.",
            group="app",
        ),
        GroupedOption(
            ["--app-dir"],
            type=click.Path(exists=True, file_okay=False),
            default=".",
            help="Where modules are looked for first.  [default: the current directory]",
            group="app",
        ),
        GroupedOption(
            ["--factory"],
            is_flag=True,
            help="APP is a function that returns the application.",
            group="app",
        ),
    ]


def _reload_options() -> list[click.Parameter]:
    def several(name: str, text: str, metavar: str) -> click.Option:
        return GroupedOption(
            [f"--reload-{name}"], multiple=True, metavar=metavar, help=text, group="reload"
        )

    return [
        GroupedOption(
            ["--reload"],
            is_flag=True,
            help="Restart when a file changes, and cut what is in flight. For development only.",
            group="reload",
        ),
        several(
            "dir",
            "Watch this folder. May be repeated.  [default: --app-dir, and where APP is]",
            "FOLDER",
        ),
        several("include", "Watch what matches, beside *.py. May be repeated.", "PATTERN"),
        several("exclude", "Do not watch what matches. May be repeated.", "PATTERN"),
        several("extra", "Watch this file too, wherever it is. May be repeated.", "PATH"),
    ]


def _config_option() -> click.Option:
    def read(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
        if not ctx.resilient_parsing:
            ctx.obj = read_settings(path)
            ctx.default_map = ctx.obj.values

    return GroupedOption(
        ["--config"],
        is_eager=True,  # the others have their defaults from there
        expose_value=False,
        callback=read,
        metavar="FILE",
        help="Settings in TOML.  [default: loopless.toml, or [tool.loopless] of pyproject.toml]",
        group="app",
    )


def _version_option() -> click.Option:
    def show(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(f"loopless {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,
        callback=show,
        help="Show the version and exit.",
    )


def from_table(option: Option) -> click.Option:
    """A row of the option table as an option of a command."""
    if option.type is bool:
        return GroupedOption(
            [f"{option.flag}/--no-{option.flag[2:]}", option.name],
            default=option.default,
            help=option.help,
            group=option.group,
        )
    facts = [option.unit] if option.unit else []
    if shown := _shown(option):
        facts.append(f"default: {shown}")
    return GroupedOption(
        [option.flag, option.name],
        type=_Value(option),
        multiple=option.multiple,
        default=option.default,
        metavar=_metavar(option),
        help=option.help + (f"  [{', '.join(facts)}]" if facts else ""),
        group=option.group,
        hidden=option.secret,
        callback=_not_typed if option.secret else None,
    )


def _not_typed(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse a secret on the command line, which every user of the machine may read."""
    assert param.name is not None
    if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
        raise ConfigError(
            f"{param.name}: everybody sees a command line, in ps; set"
            f" {ctx.auto_envvar_prefix}_{param.name.upper()}, or give --keyfile-password-file"
        )
    return value


def _metavar(option: Option) -> str:
    if option.choices:
        return f"[{'|'.join(option.choices)}]"
    if option.unit:
        return _METAVARS[option.unit]
    return {int: "NUMBER", float: "NUMBER"}.get(option.type, "TEXT")


def _shown(option: Option) -> str:
    """The default as one would type it."""
    default = option.default
    if option.multiple:
        return " ".join(default)
    if option.unit == "bytes":
        for letter, size in (("M", 1024**2), ("K", 1024)):
            if default and default % size == 0:
                return f"{default // size}{letter}"
    return f"{default:g}" if option.type is float else str(default)


def spelled_as_flag(message: str) -> str:
    """`message` of a `ConfigError`, which begins with the option's name, as of the command line."""
    name, colon, rest = message.partition(":")
    flags = {option.name: option.flag for option in OPTIONS}
    return flags.get(name, name) + colon + rest


# ---- Serving ------------------------------------------------------------------------------


class _CommandServer(Server):
    """A server that says when it begins to stop. `grace` is the longest that it then waits."""

    announced = False
    grace = math.inf

    def start(self) -> None:
        announced, self.announced = self.announced, True  # a start that fails needs no end
        super().start()
        self.announced = announced

    def stop(self, timeout: float | None = None, *, linger: float = 0.0) -> None:
        if not self.announced:
            self.announced = True
            say("stopping")
        if timeout is None:
            timeout = self.config.timeouts.graceful
        super().stop(min(timeout, self.grace), linger=linger)


def _run(
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
    config = checked_config(options)
    inherited = None

    def load() -> Loaded:
        found = load_app(app, app_dir, factory=factory)
        beside = load_app(asgi_app, app_dir) if asgi_app is not None else None
        kind, served = _as_app(found, interface, beside, config.processes.needs_supervisor)
        return Loaded(served, found.name, kind)

    if reload:
        if config.processes.needs_supervisor:
            raise ConfigError("workers: --reload restarts a single process; leave one of them out")
        roots = _existing(reload_dir) or [app_dir, *app_folder(app, app_dir)]
        watched = Watched(roots, ("*.py", *reload_include), reload_exclude, reload_extra)
        inherited = Inherited.take()
        if inherited is None:
            return run_reloader(config, watched)
    elif given := [*reload_dir, *reload_include, *reload_exclude, *reload_extra]:
        raise ConfigError(f"{given[0]}: this is for --reload, which was not given; add it")
    if config.processes.needs_supervisor:
        return run_workers(load, config, say)
    loaded = load()
    return run_server(loaded.app, config, loaded.name, loaded.kind, inherited)


def _check(
    app: str | None,
    interface: str,
    asgi_app: str | None,
    app_dir: str,
    factory: bool,
    **options: Any,
) -> int:
    config = checked_config(options)
    for text in config.bind.addresses:
        parse_bind(text)
    loaded = load_app(app, app_dir, factory=factory)
    beside = load_app(asgi_app, app_dir) if asgi_app is not None else None
    kind, _ = _as_app(loaded, interface, beside, multiprocess=False)
    say(f"{loaded.name} ({kind}) and its settings are fine")
    return 0


def _show(**options: Any) -> int:
    ctx = click.get_current_context()
    sources = {}
    for name in options:
        match ctx.get_parameter_source(name):
            case ParameterSource.COMMANDLINE:
                sources[name] = "command line"
            case ParameterSource.ENVIRONMENT:
                sources[name] = f"LOOPLESS_{name.upper()}"
            case ParameterSource.DEFAULT_MAP:
                sources[name] = ctx.obj.places[name]
    names = {option.name for option in OPTIONS}
    config = checked_config({name: options[name] for name in options if name in names})
    say(show(config, sources))
    return 0


def _existing(folders: tuple[str, ...]) -> list[str]:
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"--reload-dir: there is no folder {folder}; check the path")
    return list(folders)


def checked_config(options: dict[str, Any]) -> ServerConfig:
    """The configuration that `options` make. Raises `ConfigError`."""
    config = ServerConfig.from_options(**options)
    check_files(config)
    return config


def run_reloader(config: ServerConfig, watched: Watched, command: Sequence[str] = ()) -> int:
    """Open the sockets, and run `command` (else this one) with them in a child, again and again.

    Returns the exit code. Raises `ConfigError` for an address that cannot be bound.
    """
    return Reloader(command or this_command(), open_sockets(config), watched, say).run()


def run_server(
    app: Served,
    config: ServerConfig,
    name: str,
    kind: str,
    inherited: Inherited | None = None,
    notes: Sequence[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> int:
    """Serve `app` until a signal comes, and return the exit code.

    `name`, `kind` and `notes` are for the start message. `inherited` is what a reloader has left
    to this process. Raises `ConfigError` for what cannot be bound or used.
    """
    if config.processes.needs_supervisor:
        raise ConfigError("workers: this serves in one process; `loopless APP` starts others")
    configure_logging(config.log.level)
    raise_descriptor_limit()
    sockets = open_sockets(config) if inherited is None else inherited.sockets
    server = _CommandServer(app, config, sockets=sockets, ssl_context=ssl_context)
    if inherited is not None:
        server.announced, server.grace = True, GRACE
        notes = [*notes, f"Restarts when a file changes ({inherited.engine})"]

    def announce() -> None:
        if inherited is None or inherited.first:
            say(start_message(server, name, kind, notes))
        else:
            say(f"loopless serves {name} again")

    # Until `serve_forever` handles them, both signals end the start.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _start(server)
        server.serve_forever(announce)
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):  # a second one is not patient
            server.stop()
    return 0


def _start(server: _CommandServer) -> None:
    try:
        server.start()
    except StartupError as error:
        text = str(error).strip()
        trace = text + "\n" if "\n" in text else ""
        reason = text.rpartition("\n")[2] or "its lifespan said so"
        raise AppError(f"the application did not start: {reason}", trace) from None
    except (ConfigError, OSError) as error:
        server.announced = True  # there is nothing to stop but the sockets
        server.stop()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the server cannot start: {error}") from None


def _as_app(
    loaded: LoadedApp, interface: str, beside: LoadedApp | None, multiprocess: bool
) -> tuple[str, Any]:
    """What `loaded` is, and as what it is served: a `SyncApp` if there is another `beside` it."""
    try:
        kind = app_kind(loaded.app) if interface == "auto" else interface
        if beside is None:
            return kind, as_app(loaded.app, interface, multiprocess=multiprocess)
        if kind == "asgi":
            raise TypeError("--asgi stands beside a WSGI application or a SyncApp; leave it out")
        sync_app = as_sync_app(loaded.app, interface, multiprocess=multiprocess)
        return f"{kind}, with {beside.name}", Hybrid(sync_app, as_app(beside.app, "asgi"))
    except TypeError as error:
        raise AppError(f"{loaded.name}: {error}") from None
