import csv
import json
import sys

import pytest

from imgcls.errors import UserError
from imgcls.inference import Prediction
from imgcls.inference.prediction_table import as_row, check_format, write_rows

ROWS = [
    as_row(Prediction("a,b.png", ["猫", "do;g"], [0.75, 0.1234567], ["猫", "do;g"])),
    as_row(Prediction("bad.png", error="bad.png: not an image")),
    as_row(Prediction("c.png", ["x", "y"], [0.5, 0.5], []), [1.5, 2, 3, 4]),
]


def test_a_row_has_plain_types():
    assert ROWS[0] == {
        "file_name": "a,b.png", "classes": ["猫", "do;g"], "probabilities": [0.75, 0.123457],
        "above_threshold": ["猫", "do;g"],
    }  # fmt: skip
    assert ROWS[1] == {"file_name": "bad.png", "error": "bad.png: not an image"}
    assert ROWS[2]["box"] == [1.5, 2, 3, 4]
    assert "above_threshold" not in as_row(Prediction("c.png", ["x"], [1.0]))


def test_csv(tmp_path):
    path = tmp_path / "out.csv"
    write_rows(str(path), ROWS, 2, boxes=True, thresholds=True)
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file_name", "box", "class", "probability", "class_2", "probability_2", "above_threshold", "error"],
            ["a,b.png", "", "猫", "0.750000", "do;g", "0.123457", "猫;do,g", ""],
            ["bad.png", "", "", "", "", "", "", "bad.png: not an image"],
            ["c.png", "1.5 2 3 4", "x", "0.500000", "y", "0.500000", "", ""],
        ]
    write_rows(str(path), ROWS[1:2], 1, boxes=False, thresholds=False)
    assert path.read_text() == "file_name,class,probability,error\nbad.png,,,bad.png: not an image\n"


def test_json_lines_and_file_names_that_are_not_utf_8(tmp_path):
    path = tmp_path / "out.jsonl"
    rows = [*ROWS, as_row(Prediction("x\udcff.png", ["x"], [1.0]))]
    write_rows(str(path), rows, 2, boxes=True, thresholds=True)
    lines = path.read_bytes().splitlines()
    assert [json.loads(line) for line in lines[:3]] == ROWS and "猫".encode() in lines[0]
    assert b'"x\xff.png"' in lines[3]
    write_rows(str(tmp_path / "out.csv"), rows, 2, boxes=False, thresholds=False)
    assert b"x\xff.png" in (tmp_path / "out.csv").read_bytes()


def test_parquet(tmp_path, require):
    parquet = require("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    write_rows(str(path), [*ROWS, {"file_name": "x\udcff.png"}] * 6000, 2, boxes=True, thresholds=True)
    table = parquet.read_table(path)
    assert table.column_names == ["file_name", "box", "classes", "probabilities", "above_threshold", "error"]
    rows = table.to_pylist()
    assert (
        len(rows) == 24000 and rows[23996]["classes"] == ["猫", "do;g"] and rows[0]["above_threshold"] == ["猫", "do;g"]
    )
    assert rows[0]["probabilities"] == pytest.approx([0.75, 0.123457]) and rows[1]["classes"] is None
    assert rows[1]["error"] == "bad.png: not an image" and rows[2]["box"] == [1.5, 2, 3, 4]
    assert rows[3]["file_name"] == "x\ufffd.png"


def test_other_formats_and_a_missing_package_are_refused(monkeypatch):
    for name in ("out.csv", "OUT.CSV", "out.jsonl"):
        check_format(name)
    with pytest.raises(UserError, match=r"--output out\.txt: the name ends with \.txt; allowed: \.csv, \.jsonl"):
        check_format("out.txt")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'needs pyarrow: pip install -e "\.\[parquet\]"'):
        check_format("out.parquet")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match=r"out\.csv: cannot be written"):
        write_rows(str(tmp_path / "out.csv"), ROWS, 2, boxes=False, thresholds=False)
