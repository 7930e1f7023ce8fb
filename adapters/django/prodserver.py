"""A backend for django-prodserver: `manage.py server` on threadwell.

PRODUCTION_PROCESSES = {
    "web": {
        "BACKEND": "threadwell.adapters.django.prodserver.ThreadwellServer",
        "ARGS": {"bind": "0.0.0.0:8000", "threads": "16"},
    },
}
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping

from django.conf import settings
from django.core.management import CommandError
from django_prodserver.backends.base import BaseServerBackend
from django_prodserver.utils import wsgi_app_name

from threadwell.process_setup import USAGE_ERROR


class ThreadwellServer(BaseServerBackend):  # type: ignore[misc,unused-ignore]
    """Runs the command `threadwell` with the options in `ARGS`.

    A list of values, such as `"bind": [...]`, repeats the option. `ARGS` may also be a string, as a
    user would type it.
    """

    def _format_server_args_from_dict(
        self, args: str | Mapping[str, str | Collection[str] | None]
    ) -> list[str]:
        if isinstance(args, str):
            return shlex.split(args)
        words = []
        for name, value in args.items():
            flag = "--" + name.replace("_", "-")
            if value is None:
                words.append(flag)
            elif isinstance(value, (list, tuple, set, frozenset)):
                words += [f"{flag}={item}" for item in value]
            else:
                words.append(f"{flag}={value}")
        return words

    def prep_server_args(self) -> list[str]:
        """The arguments of the command: the options, then what `WSGI_APPLICATION` names."""
        if not getattr(settings, "WSGI_APPLICATION", None):
            raise CommandError(
                "The setting WSGI_APPLICATION names no application to serve:"
                " set it to 'PROJECT.wsgi.application'.",
                returncode=USAGE_ERROR,
            )
        return [*self.args, wsgi_app_name()]

    def start_server(self, *args: str) -> None:
        """Serve until a signal; an error ends the process with the exit code of the command."""
        from threadwell.cli import main

        code = main(args)
        if code:
            sys.exit(code)
