"""The app's name."""

from django.apps import AppConfig


class NotesConfig(AppConfig):
    """Short texts, each with a file if one is wanted."""

    name = "notes"
