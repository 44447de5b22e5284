"""The host's side of a run: time, disk, screens. No mathematics."""
