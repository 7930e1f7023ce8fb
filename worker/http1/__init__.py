"""HTTP/1.1: octets to requests, and answers to octets."""
