"""HTTP/1.1: parsing requests and writing responses."""
