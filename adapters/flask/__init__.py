"""Flask on threadwell: `FlaskApp` is a `SyncApp` that calls a Flask application."""

from .app import FlaskApp

__all__ = ["FlaskApp"]
