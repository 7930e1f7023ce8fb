"""Explains a `DJANGO_SETTINGS_MODULE` that names no module."""

from __future__ import annotations

import os
import pkgutil
import sys

from .worker import nearest

VARIABLE = "DJANGO_SETTINGS_MODULE"


def settings_mistake(error: ModuleNotFoundError) -> str:
    """What is wrong with the variable, if that has led to `error`; else empty.

    A module that the settings import, and that is missing, is another mistake.
    """
    settings, missing = os.environ.get(VARIABLE, ""), error.name or ""
    if not missing or not f"{settings}.".startswith(f"{missing}."):
        return ""
    parent, _, last = missing.rpartition(".")
    places = getattr(sys.modules.get(parent), "__path__", ()) if parent else sys.path[:1]
    names = [module.name for module in pkgutil.iter_modules(places)]
    meant = ""
    if near := nearest(last, names):
        spelled = f"{parent}.{near}" if parent else near
        meant = f"; did you mean {spelled}{settings.removeprefix(missing)}?"
    hint = meant or "; it names a module, such as mysite.settings"
    return f"{VARIABLE} is {settings!r}, and there is no module {missing}{hint}"
