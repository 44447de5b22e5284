"""One agent's life."""
