"""`python -m threadwell.django`: `runserver_fast` for a project that does not list the app.

It serves the project whose `manage.py` is in the current directory, or that DJANGO_SETTINGS_MODULE
names. The options are those of `runserver_fast`. Nothing in the project is changed.
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

from .django_settings import VARIABLE, settings_mistake
from .process_setup import USAGE_ERROR

_APP = "threadwell.adapters.django"
_COMMAND = "runserver_fast"
_PROGRAM = "python -m threadwell.django"
# Commands that a reloader runs with this module in the place of `manage.py`.
_COMMANDS = (_COMMAND, "check")


def main() -> int:
    """Serve the project until a signal; return the exit code. Call it in the main thread."""
    words = sys.argv[1:]
    if words[:1] and words[0] in _COMMANDS:
        command, *words = words
    else:
        command = _COMMAND
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    problem = _name_settings() or _import_settings()
    if problem:
        sys.stderr.write(f"threadwell: {problem}\n")
        return USAGE_ERROR
    from django.core.management import execute_from_command_line

    # The reloader starts its children with these words, behind `-m threadwell.django`.
    sys.argv[1:] = [command, *words]
    execute_from_command_line([_PROGRAM, command, *words])
    return 0


def _name_settings() -> str:
    """Set DJANGO_SETTINGS_MODULE as `manage.py` does, unless it is set. What is wrong, if anything
    is."""
    if os.environ.get(VARIABLE):
        return ""
    path = Path("manage.py")
    try:
        tree = ast.parse(path.read_bytes())
    except FileNotFoundError:
        return (
            f"there is no manage.py in {os.getcwd()}, and {VARIABLE} is not set; change to the"
            " folder of manage.py, or set the variable"
        )
    except (OSError, SyntaxError, ValueError) as error:
        return f"manage.py cannot be read: {error}"
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="setdefault"),
                args=[ast.Constant(value=name), ast.Constant(value=str() as settings)],
            ) if name == VARIABLE:
                os.environ[VARIABLE] = settings
                return ""
            case ast.Assign(
                targets=[ast.Subscript(slice=ast.Constant(value=name))],
                value=ast.Constant(value=str() as settings),
            ) if name == VARIABLE:
                os.environ[VARIABLE] = settings
                return ""
    return f"manage.py does not set {VARIABLE}; set the variable"


def _import_settings() -> str:
    """Import the settings, with the app of threadwell in them. What is wrong, if anything is."""
    try:
        from django.conf import settings
    except ModuleNotFoundError:
        return "Django is not installed; install threadwell[django] into this environment"
    try:
        installed = list(settings.INSTALLED_APPS)
    except ModuleNotFoundError as error:
        if mistake := settings_mistake(error):
            return mistake
        raise
    if not any(str(app).startswith(f"{_APP}.apps.") or app == _APP for app in installed):
        settings.INSTALLED_APPS = [_APP, *installed]
    return ""


if __name__ == "__main__":
    sys.exit(main())
