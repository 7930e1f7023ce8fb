"""`manage.py runserver` on threadwell: an app of its own, for it replaces the command."""
