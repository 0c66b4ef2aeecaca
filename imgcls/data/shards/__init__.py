"""Packed data: pictures in WebDataset tar shards, each with a table of what lies where."""
