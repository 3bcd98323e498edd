"""A run's network as a file for other programs, checked against the run's own output."""
