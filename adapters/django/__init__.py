"""Django on threadwell: add `"threadwell.adapters.django"` to `INSTALLED_APPS`.

The app has the command `runserver_fast`. `handler.DjangoApp` is the `SyncApp` that calls the
handler of Django.
"""
