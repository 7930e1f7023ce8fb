"""`threadwell config import FILE`: a `threadwell.toml` from the settings of another server."""
