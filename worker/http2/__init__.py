"""HTTP/2 by ALPN: framing on an event loop, sync applications on the server's threads.

Imported where the option `http2` is on. Only `hpack.py`, `framing.py` and `writer.py` import hpack.
"""
