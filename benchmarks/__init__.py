"""What threadwell and other servers cost: see README.md. Run as `python -m benchmarks`."""
