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


class ThreadwellServer(BaseServerBackend):  # type: ignore[misc,unused-ignore]
    """Hands its arguments, options of the command `threadwell`, to that command.

    Several values of one option, as `"bind": [...]`, are that option several times. The arguments
    may also be one string, as it would be typed.
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
                words += [f"{flag}={one}" for one in value]
            else:
                words.append(f"{flag}={value}")
        return words

    def prep_server_args(self) -> list[str]:
        """The options, and the application that `WSGI_APPLICATION` names."""
        if not getattr(settings, "WSGI_APPLICATION", None):
            raise CommandError(
                "The setting WSGI_APPLICATION names no application to serve:"
                " set it to 'PROJECT.wsgi.application'.",
                returncode=2,
            )
        return [*self.args, wsgi_app_name()]

    def start_server(self, *args: str) -> None:
        """Serve until told to stop; a mistake ends the process with code 2."""
        from threadwell.cli import main

        code = main(args)
        if code:
            sys.exit(code)
