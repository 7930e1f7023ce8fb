"""Django on loopless: put `"loopless.adapters.django"` into `INSTALLED_APPS`.

That is the app; `handler` has `DjangoApp`, the `SyncApp` around Django's handler.
"""
