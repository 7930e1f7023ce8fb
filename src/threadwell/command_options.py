"""The option table as options of a click command, under the headings of its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from .worker import OPTIONS, ConfigError, Option
from .worker.config import TITLES

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic before click 8.4

_TITLES = {"app": "Application", **TITLES, "reload": "Development"}
_METAVARS = {"bytes": "SIZE", "seconds": "SECONDS", "bytes per second": "BYTES"}


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
            raise click.UsageError(located(str(error), ctx), ctx) from None
        return converted[0] if self.option.multiple else converted

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        words = (*self.option.choices, *filter(None, (self.option.word,)))
        if not words and self.option.type not in (int, float):
            return _files(ctx, param, incomplete)
        return [CompletionItem(c) for c in words if c.startswith(incomplete)]


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell, which completes the names of files."""
    del ctx, param
    return [CompletionItem(incomplete, type="file")]


class _Truth(click.types.BoolParamType):
    """The same, of an option that is on or off."""

    def __init__(self, option: Option) -> None:
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        del param
        try:
            return bool(self.option.convert(value))
        except ConfigError as error:
            raise click.UsageError(located(str(error), ctx), ctx) from None


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
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in _TITLES.values()}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = _TITLES[getattr(param, "group", self.default_group)]
                sections[title].append(record)
        for title, records in sections.items():
            if not records:
                continue
            with formatter.section(title):
                formatter.write_dl(records)


def from_table(option: Option) -> click.Option:
    """A row of the option table as an option of a command."""
    if option.type is bool:
        return GroupedOption(
            [f"{option.flag}/--no-{option.flag[2:]}", option.name],
            type=_Truth(option),
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
            f"{param.opts[0]}: everybody sees a command line, in ps; set"
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
    flags = {
        option.name: f"THREADWELL_{option.name.upper()}" if option.secret else option.flag
        for option in OPTIONS
    }
    return flags.get(name, name) + colon + rest


def located(message: str, ctx: click.Context | None) -> str:
    """The same, with the option's name as it stands where its value is from: a flag, a variable of
    the environment, or behind a file and a line."""
    name, colon, rest = message.partition(":")
    source = ctx.get_parameter_source(name) if ctx is not None else None
    if ctx is not None and source is ParameterSource.ENVIRONMENT:
        return f"{ctx.auto_envvar_prefix}_{name.upper()}{colon}{rest}"
    if ctx is not None and source is ParameterSource.DEFAULT_MAP:
        place = getattr(ctx.obj, "places", {}).get(name, name)
        return f"{place}{colon}{rest}" if place.isidentifier() else f"{place}: {message}"
    return spelled_as_flag(message)


def app_options() -> list[click.Parameter]:
    return [
        click.Argument(["app"], required=False, envvar="THREADWELL_APP", shell_complete=_files),
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


def reload_options() -> list[click.Parameter]:
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
