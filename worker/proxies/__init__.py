"""Proxies: which are trusted, and what their fields and headers say."""
