"""Packed data: images in WebDataset tar shards, each with a table of what lies where."""
