"""Published and own weights: found, fetched, verified; what is known of a checkpoint; label lists."""
