"""A Django app of its own, because it replaces the command `runserver`."""
