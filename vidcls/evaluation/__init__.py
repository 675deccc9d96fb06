"""Scores of labeled clips → metrics and a report."""
