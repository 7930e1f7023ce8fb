"""The option table as options of a click command, with a heading for each group."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .adapters.detect import INTERFACES
from .environment import variable_of
from .option_text import help_of, metavar_of
from .worker import OPTIONS, ConfigError, Option
from .worker.config import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic before click 8.4

_TITLES = {"app": "Application", **TITLES, "reload": "Development"}


class _Value(_ParamType):
    """The click type of an option of the table."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = option.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        del param
        try:
            converted = self.option.convert(value)
        except ConfigError as error:
            raise click.UsageError(with_source(str(error), ctx), ctx) from None
        return converted[0] if self.option.multiple else converted

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        words = (*self.option.choices, *filter(None, (self.option.word,)))
        if not words and self.option.type not in (int, float):
            return _complete_files(ctx, param, incomplete)
        from click.shell_completion import CompletionItem

        return [CompletionItem(c) for c in words if c.startswith(incomplete)]


def _complete_app(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete `module:app`, and let the shell complete file names."""
    from click.shell_completion import CompletionItem

    from .app_candidates import candidates

    found = candidates(ctx.params.get("app_dir") or ".", incomplete)
    files = [] if ":" in incomplete else _complete_files(ctx, param, incomplete)
    return [*(CompletionItem(each) for each in found), *files]


def _complete_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete file names."""
    del ctx, param
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


class _BoolValue(click.types.BoolParamType):
    """The click type of an option of the table that is on or off."""

    def __init__(self, option: Option) -> None:
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        del param
        try:
            return bool(self.option.convert(value))
        except ConfigError as error:
            raise click.UsageError(with_source(str(error), ctx), ctx) from None


class GroupedOption(click.Option):
    """An option that the help lists under the heading of `group`."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command with help in two sizes: the `common` options, or all in a section for each group.

    `commands` are lines of the help: the words of other commands, and what they do.
    """

    #: The group of options that are not a `GroupedOption`.
    default_group = "app"

    def __init__(
        self,
        *args: Any,
        common: Collection[str] = (),
        commands: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._common = common
        self._commands = commands
        if common:
            self.params.append(_help_all_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shows_all = not self._common or ctx.meta.get(_SHOWS_ALL, False)
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in _TITLES.values()}
        common = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = _TITLES[getattr(param, "group", self.default_group)]
                sections[title].append(record)
                if param.name in self._common or param.is_eager:
                    common.append((record[0], _first_sentence(record[1])))
        for title, records in sections.items() if shows_all else [("Options", common)]:
            if not records:
                continue
            with formatter.section(title):
                formatter.write_dl(records)
        if self._commands:
            with formatter.section("Commands"):
                formatter.write_dl(self._commands)
        if not shows_all:
            count = sum(map(len, sections.values()))
            formatter.write_paragraph()
            formatter.write_text(f"{ctx.command_path} --help-all shows all {count} options.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self._common or ctx.meta.get(_SHOWS_ALL, False):
            super().format_epilog(ctx, formatter)


_SHOWS_ALL = "threadwell.help_all"


def _first_sentence(text: str) -> str:
    """The first sentence of a help text, and the facts in brackets behind all of it."""
    sentences, space, facts = text.partition("  [")
    return sentences.partition(". ")[0].rstrip(".") + "." + space + facts


def _help_all_option() -> click.Option:
    def show(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            ctx.meta[_SHOWS_ALL] = True
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()

    return click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,
        callback=show,
        help="Show every option, in groups, and exit.",
    )


def flags_of(command: click.Command) -> dict[str, bool]:
    """The flags of `command`, and whether a value follows each."""
    with command.make_context(command.name, [], resilient_parsing=True) as ctx:
        params = command.get_params(ctx)  # --help is among them
    return {
        flag: not param.is_flag
        for param in params
        if isinstance(param, click.Option)
        for flag in (*param.opts, *param.secondary_opts)
    }


def long_flags_of(command: click.Command) -> dict[str, str]:
    """The long flag of each flag of `command`."""
    return {
        flag: max(param.opts, key=len)
        for param in command.params
        if isinstance(param, click.Option)
        for flag in param.opts
    }


def from_table(option: Option, short: str | None = None) -> click.Option:
    """A row of the option table as a click option, with a `short` flag beside its own."""
    if option.type is bool:
        return GroupedOption(
            [f"{option.flag}/--no-{option.flag[2:]}", option.name],
            type=_BoolValue(option),
            default=option.default,
            help=option.help,
            group=option.group,
        )
    return GroupedOption(
        [*filter(None, (short,)), option.flag, option.name],
        type=_Value(option),
        multiple=option.multiple,
        default=option.default,
        metavar=metavar_of(option),
        help=help_of(option),
        group=option.group,
        hidden=option.secret,
        callback=_refuse_on_command_line if option.secret else None,
    )


def _refuse_on_command_line(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse a secret on the command line, which every user of the machine can read."""
    assert param.name is not None
    if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
        raise ConfigError(
            f"{param.opts[0]}: every user can see a command line, with ps; set"
            f" {ctx.auto_envvar_prefix}_{param.name.upper()}, or give --keyfile-password-file"
        )
    return value


def spelled_as_flag(message: str) -> str:
    """The message of a `ConfigError` with the flag instead of the option's name.

    A secret has no flag, so its environment variable is named.
    """
    name, colon, rest = message.partition(":")
    flags = {
        option.name: variable_of(option.name) if option.secret else option.flag
        for option in OPTIONS
    }
    return flags.get(name, name) + colon + rest


def with_source(message: str, ctx: click.Context | None) -> str:
    """The message of a `ConfigError` with the source of the value instead of the option's name.

    The source is a flag, an environment variable, or a file and a line.
    """
    name, colon, rest = message.partition(":")
    source = ctx.get_parameter_source(name) if ctx is not None else None
    if ctx is not None and source is ParameterSource.ENVIRONMENT:
        return f"{ctx.auto_envvar_prefix}_{name.upper()}{colon}{rest}"
    if ctx is not None and source is ParameterSource.DEFAULT_MAP:
        place = getattr(ctx.obj, "places", {}).get(name, name)
        return f"{place}{colon}{rest}" if place.isidentifier() else f"{place}: {message}"
    return spelled_as_flag(message)


def app_options() -> list[click.Parameter]:
    """The parameters that say which application to serve."""
    return [
        click.Argument(
            ["app"], required=False, envvar="THREADWELL_APP", shell_complete=_complete_app
        ),
        GroupedOption(
            ["--interface"],
            type=click.Choice(INTERFACES),
            default="auto",
            help="The interface of the application, if it cannot be detected.  [default: auto]",
            group="app",
        ),
        GroupedOption(
            ["--asgi", "asgi_app"],
            metavar="APP",
            shell_complete=_complete_app,
            help="An ASGI application beside APP, for WebSockets and requests"
            " that a SyncApp declines.",
            group="app",
        ),
        GroupedOption(
            ["--app-dir"],
            type=click.Path(exists=True, file_okay=False),
            default=".",
            help="The folder to import modules from first.  [default: the current directory]",
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
    """The options of the reloader."""

    def several(name: str, text: str, metavar: str) -> click.Option:
        return GroupedOption(
            [f"--reload-{name}"], multiple=True, metavar=metavar, help=text, group="reload"
        )

    return [
        GroupedOption(
            ["--reload"],
            is_flag=True,
            help="Restart when a file changes, and cut requests in flight. For development only.",
            group="reload",
        ),
        several(
            "dir",
            "Watch this folder. May be repeated.  [default: --app-dir, and where APP is]",
            "FOLDER",
        ),
        several(
            "include", "Watch files that match, in addition to *.py. May be repeated.", "PATTERN"
        ),
        several("exclude", "Do not watch files that match. May be repeated.", "PATTERN"),
        several("extra", "Watch this file too, wherever it is. May be repeated.", "PATH"),
    ]


_IMPORT_HELP = """Write a threadwell.toml from the settings of another server.

FILE is a gunicorn.conf.py, a uwsgi.ini, a Procfile, or any file with a command line of gunicorn,
uvicorn, granian, hypercorn, waitress, daphne or uWSGI. It is read and never executed. What has no
counterpart is listed, with the reason.
"""


def import_command(callback: Callable[..., int]) -> click.Command:
    """The command `threadwell config import`."""
    return click.Command(
        name="import",
        params=[
            click.Argument(["file"], type=click.Path(exists=True, dir_okay=False)),
            click.Option(
                ["--output", "-o"],
                type=click.Path(),
                metavar="FILE",
                help="Write this file instead of standard output. One that exists is kept.",
            ),
            click.Option(["--overwrite"], is_flag=True, help="Replace the file of --output."),
        ],
        callback=callback,
        help=_IMPORT_HELP,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def ctl_command(callback: Callable[..., int], verbs: str) -> click.Command:
    """The command `threadwell ctl`. `verbs` are the lines of its help that list them."""
    return click.Command(
        name="ctl",
        params=[
            click.Argument(["path"]),
            click.Argument(["verb"]),
            click.Argument(["arguments"], nargs=-1),
            click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON."),
        ],
        callback=callback,
        help="Inspect and control a running server.\n\nPATH is the socket of --control, with"
        " or without unix: before it.\n\n\b\nVerbs:\n" + verbs,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def top_command(callback: Callable[..., int]) -> click.Command:
    """The command `threadwell top`."""
    return click.Command(
        name="top",
        params=[
            click.Argument(["path"]),
            click.Option(
                ["--interval"],
                type=click.FloatRange(0.1, 3600),
                default=1.0,
                show_default=True,
                metavar="SECONDS",
                help="Time between two looks at the server.",
            ),
            click.Option(["--once"], is_flag=True, help="Print one view and exit."),
        ],
        callback=callback,
        help="Show a live view of a running server.\n\nPATH is the socket of --control, with or"
        " without unix: before it. Without a terminal one view is printed.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


# ---- Shell completion ---------------------------------------------------------------------

# bash splits words at colons, so that `module:app` would be three: the line itself is asked for,
# and what stands in front of the last colon is cut from each answer.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:$COMP_POINT}" response completion type value word colon
    word="${line##* }"
    [[ "$COMP_WORDBREAKS" == *:* ]] && colon="${word%%"${word##*:}"}"
    response=$(env COMP_WORDS="$line" COMP_CWORD=-1 %(complete_var)s=bash_complete $1)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=(); compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$colon"}")
        fi
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


def complete(
    instruction: str,
    variable: str,
    select: Callable[[list[str]], tuple[str, click.Command, list[str]]],
    commands: Sequence[tuple[str, str]],
) -> None:
    """Print the script for a shell, or the completions that the script asks for.

    `instruction` is the value of `variable`, such as `bash_source`. `select` finds the command of a
    command line; `commands` are the words of the commands that are no application, and what they
    do. Raises `UsageError` for an unknown shell.
    """
    from click.shell_completion import CompletionItem, get_completion_class, split_arg_string

    shell, _, wanted = instruction.partition("_")
    cls = get_completion_class(shell)
    if cls is None or wanted not in ("source", "complete"):
        raise click.UsageError(f"{variable}: it may be bash_source, zsh_source or fish_source")
    name, command, _ = select([])
    complete = cls(command, {}, name, variable)
    if wanted == "source":
        vars_ = complete.source_vars()
        click.echo(_BASH % vars_ if shell == "bash" else complete.source())
        return
    if shell == "bash" and os.environ.get("COMP_CWORD") == "-1":
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = "" if line[-1:].isspace() or not words else words.pop()
    else:
        words, incomplete = complete.get_completion_args()
    name, command, rest = select(words)
    items = cls(command, {}, name, variable).get_completions(rest, incomplete)
    if not incomplete.startswith("-"):
        items[:0] = [
            CompletionItem(each[len(words)], help=text)
            for usage, text in commands
            if (each := usage.split())[: len(words)] == words and len(each) > len(words)
            if each[len(words)].startswith(incomplete) and each[len(words)].islower()
        ]
    for item in {(item.type, item.value): item for item in items}.values():
        click.echo(complete.format_completion(item))
