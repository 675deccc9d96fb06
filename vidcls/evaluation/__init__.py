"""Scores of labelled clips → metrics and a report."""
