"""What a finished run shows: a table of its metrics and three pictures."""

from .build import Report, write_report

__all__ = ["Report", "write_report"]
