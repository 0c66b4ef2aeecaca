"""The table of ratios and its summary."""

import csv

import pytest
from benchmark.compare import Table
from benchmark.record import HEADER, append_ratios, read_ratios, summary_rows
from benchmark.report import Report

from imgcls.errors import UserError, UserFileNotFoundError

MACHINE = {"processor": "CPU A", "cores": 2, "GPU": "none", "torch": "2.14.1", "load before": 0.1}


def report(*ours, peer=100.0):
    values = {"imgcls": list(ours), "peer": [peer] * len(ours)}
    return Report("step", [Table("a step, width 1", "images/s", values, ["peer"])])


def test_each_ratio_is_a_row_with_what_it_was_measured_on(tmp_path):
    path = tmp_path / "new folder" / "results.csv"
    append_ratios(path, report(100, 150, 200, 250, 300), MACHINE, "2026-01-02")
    with open(path, newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "date": "2026-01-02",
        "command": "step",
        "measured": "a step, width 1",
        "candidate": "imgcls",
        "reference": "peer",
        "ratio": "2.0",
        "lower_quartile": "1.5",
        "upper_quartile": "2.5",
        "rounds": "5",
        "processor": "CPU A",
        "cores": "2",
        "gpu": "none",
        "torch": "2.14.1",
    }


def test_rows_are_added_and_read_again(tmp_path):
    path = tmp_path / "results.csv"
    append_ratios(path, report(100), MACHINE, "2026-01-02")
    first = read_ratios(path)
    append_ratios(path, report(300), MACHINE)
    assert path.read_text().count("date,command") == 1
    rows = read_ratios(path)
    assert rows[:1] == first and [row.ratio for row in rows] == [1, 3]
    assert len(rows[1].date) == 10 and rows[1].date > "2026"
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_tables_without_a_reference_add_nothing(tmp_path):
    append_ratios(tmp_path / "results.csv", Report("index", [Table("m", "MB", {"a": [1]})]), MACHINE)
    assert read_ratios(tmp_path / "results.csv") == []


def test_a_failed_write_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    append_ratios(path, report(100), MACHINE)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        append_ratios(path, report(200), MACHINE)
    assert path.read_bytes() == before


def test_the_summary_is_the_range_over_machine_days(tmp_path):
    path = tmp_path / "results.csv"
    append_ratios(path, report(100), MACHINE, "2026-01-02")
    append_ratios(path, report(140), MACHINE, "2026-01-02")  # the same day: the median of both, 1.2
    append_ratios(path, report(180), MACHINE, "2026-01-03")
    assert summary_rows(read_ratios(path))[2:] == [
        "| a step, width 1 (`step`) | imgcls | peer | 1.20 to 1.80 | 2 (fewer than 3) | 2.14.1 |"
    ]
    append_ratios(path, report(123), MACHINE | {"processor": "CPU B", "torch": "2.15.0"}, "2026-01-03")
    append_ratios(path, report(150), MACHINE | {"GPU": "H100"}, "2026-01-03")
    assert summary_rows(read_ratios(path))[2:] == [
        "| a step, width 1 (`step`) | imgcls | peer | 1.20 to 1.80 | 4 | 2.14.1, 2.15.0 |"
    ]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserFileNotFoundError, match="no such file"):
        read_ratios(tmp_path / "none.csv")
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n")
    for call in (read_ratios, lambda path: append_ratios(path, report(1), MACHINE)):
        with pytest.raises(UserError, match=r"mine\.csv: expected the columns date,command,.*--record"):
            call(path)
    assert path.read_text() == "a,b\n1,2\n"
    path.write_text(",".join(HEADER) + "\n2026-01-02,step\n")
    with pytest.raises(UserError, match="a row is damaged"):
        read_ratios(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--record"):
        append_ratios(tmp_path / "file" / "results.csv", report(1), MACHINE)
