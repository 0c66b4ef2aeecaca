"""What a run shows: a table of its metrics, and a page that a browser opens; and several runs side by side."""

from imgcls.report.comparison import write_comparison
from imgcls.report.run_report import Report, write_report

__all__ = ["Report", "write_comparison", "write_report"]
