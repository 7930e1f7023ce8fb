"""Trusted proxies, and what they tell about clients."""
