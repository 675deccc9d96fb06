"""Results → one HTML file that opens offline: `source` reads, `pictures` decodes frames, `page` writes."""
