"""Results → one HTML file that opens offline: `source` reads them, `pictures` decodes frames, `page` writes the file."""
