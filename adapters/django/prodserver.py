"""A backend for django-prodserver: `manage.py server` on loopless.

PRODUCTION_PROCESSES = {
    "web": {
        "BACKEND": "loopless.adapters.django.prodserver.LooplessServer",
        "ARGS": {"bind": "0.0.0.0:8000", "threads": "16"},
    },
}
"""

from __future__ import annotations

import sys

from django_prodserver.backends.base import BaseServerBackend
from django_prodserver.utils import wsgi_app_name


class LooplessServer(BaseServerBackend):  # type: ignore[misc,unused-ignore]
    """Hands its arguments, options of the command `loopless`, to that command."""

    def prep_server_args(self) -> list[str]:
        """The options, and the application that `WSGI_APPLICATION` names."""
        return [*self.args, wsgi_app_name()]

    def start_server(self, *args: str) -> None:
        """Serve until told to stop; a mistake ends the process with code 2."""
        from loopless.cli import main

        code = main(args)
        if code:
            sys.exit(code)
