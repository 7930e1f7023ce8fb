"""What one connection may use at once, on the threads and on the loops alike."""

from __future__ import annotations

#: Octets that one call of `recv` asks for.
RECV_SIZE = 65536
#: The same for a request body that comes in bulk.
BODY_RECV_SIZE = 256 * 1024
#: Calls of `recv` on one connection before other connections get a turn.
RECVS_PER_TURN = 16
#: Octets of a request body after which other connections get a turn.
OCTETS_PER_TURN = 1024 * 1024
#: Pipelined requests of one connection that are answered before other connections get a turn.
REQUESTS_PER_TURN = 16
#: The largest request, in octets, that a connection keeps: clients that poll send the same octets
#: each time.
LONGEST_REPEATED_HEAD = 1024
