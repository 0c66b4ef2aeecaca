"""One reader for each kind of source: its own records under its own classes."""
