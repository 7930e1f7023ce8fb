"""What one connection may use at once, on the threads and on the loops alike."""

from __future__ import annotations

#: Octets that one call of `recv` asks for.
RECV_SIZE = 65536
#: Calls of `recv` on one connection before other connections get a turn.
RECVS_PER_TURN = 16
#: Pipelined requests of one connection that are answered before other connections get a turn.
REQUESTS_PER_TURN = 16
#: The largest request, in octets, that a connection keeps: clients that poll send the same octets
#: each time.
LONGEST_REPEATED_HEAD = 1024
