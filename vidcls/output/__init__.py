"""Rows → files, pipes and terminals: `row` has the columns, `formats` the formats, `writers` opens an output."""
