"""The search over objectives."""
