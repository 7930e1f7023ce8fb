"""`manage.py runserver`, for projects that list `loopless.adapters.django.runserver`."""

from __future__ import annotations

from loopless.adapters.django.command import LooplessCommand, runserver_below


class Command(LooplessCommand, runserver_below("loopless.adapters.django.runserver")):  # type: ignore[misc]
    """`runserver`, on loopless."""
