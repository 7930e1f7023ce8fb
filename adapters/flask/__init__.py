"""Flask on threadwell: `FlaskApp`, a `SyncApp` around a Flask application."""

from .app import FlaskApp

__all__ = ["FlaskApp"]
