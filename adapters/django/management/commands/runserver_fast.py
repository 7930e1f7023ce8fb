"""`manage.py runserver_fast`."""

from __future__ import annotations

from threadwell.adapters.django.command import ThreadwellCommand, runserver_below


class Command(ThreadwellCommand, runserver_below()):  # type: ignore[misc]
    """`runserver` on threadwell."""
