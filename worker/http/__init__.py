"""HTTP semantics without I/O, shared by HTTP/1.1 and HTTP/2, threads and event loops."""
