"""`manage.py runserver` on loopless: an app of its own, for it replaces the command."""
