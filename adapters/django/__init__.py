"""Django on threadwell: put `"threadwell.adapters.django"` into `INSTALLED_APPS`.

That is the app; `handler` has `DjangoApp`, the `SyncApp` around Django's handler.
"""
