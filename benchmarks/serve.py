"""Start a server that has no command of its own: python serve.py cheroot|bjoern PORT THREADS."""

from __future__ import annotations

import sys

from served import app


def main() -> None:
    """Serve until a signal."""
    name, port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if name == "bjoern":
        import bjoern

        bjoern.run(app, "127.0.0.1", port)
    else:
        from cheroot.wsgi import Server

        server = Server(
            ("127.0.0.1", port), app, numthreads=threads, request_queue_size=2048, timeout=300
        )
        server.keep_alive_conn_limit = 20_000  # it would answer further clients with 503
        server.safe_start()


if __name__ == "__main__":
    main()
