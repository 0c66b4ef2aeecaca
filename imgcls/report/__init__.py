"""What a finished run shows: a table of its metrics and three images."""

from imgcls.report.run_report import Report, write_report

__all__ = ["Report", "write_report"]
