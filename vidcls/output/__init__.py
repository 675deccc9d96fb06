"""One row for each input, and its writers."""
