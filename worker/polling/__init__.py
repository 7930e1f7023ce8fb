"""Where connections wait until something happens, and threads for connections."""
