"""Runs public conformance suites against threadwell and its peers: see scripts/conformance."""
