"""Learned objectives: the mathematics of an agent's update, and how it sees time."""

__owner__ = "kairos-rl"
