"""The report of a run: a table of its metrics, and figures."""

from imgcls.report.run_report import Report, write_report

__all__ = ["Report", "write_report"]
