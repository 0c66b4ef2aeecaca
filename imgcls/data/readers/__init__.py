"""One reader for each kind of source; it returns a ``RawDataset`` with the source's own classes."""
