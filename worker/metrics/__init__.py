"""What operators watch: numbers, and whether the server is well. Imported if it is asked for.

counts ----- what is counted, by each thread for itself
  ledger     the numbers of all processes, and of those that have ended
  stock      what there is just now: threads, connections, memory
  text       the numbers as Prometheus reads them
  endpoint   /metrics, /healthz and /readyz, and who serves them
"""
