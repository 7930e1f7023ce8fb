"""Static files, served in front of an application; see `files`."""

from .files import StaticApp, StaticFiles
from .folders import check_static

__all__ = ["StaticApp", "StaticFiles", "check_static"]
