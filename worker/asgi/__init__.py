"""The asyncio side: ASGI applications on event loops.

No module outside of this package and of `http2` imports asyncio. Both packages are imported only
when an ASGI application or HTTP/2 is served. docs/architecture.md describes the modules.
"""
