"""Metrics and health of a server, for operators. Imported only if `metrics_bind` is given.

counters       counts events, each thread for itself
shared_pages   the numbers of all processes, including those that have ended
gauges         what a process has at one moment: threads, connections, memory
prometheus     the numbers in the formats that Prometheus reads
endpoint       /metrics, /healthz and /readyz, and the server for them
"""
