"""HTTP/2 by ALPN: framing on an event loop, sync applications on the server's threads.

Imported where the option `http2` is on. `line.py` is the only importer of h2.
"""
