"""The asyncio side: ASGI applications on event loops.

Nothing outside of this package imports asyncio, and this package is imported only when an ASGI
application is served. See docs/architecture.md for who does what.
"""
