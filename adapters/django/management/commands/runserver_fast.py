"""`manage.py runserver_fast`."""

from __future__ import annotations

from loopless.adapters.django.command import LooplessCommand, runserver_below


class Command(LooplessCommand, runserver_below()):  # type: ignore[misc]
    """`runserver`, on loopless."""
