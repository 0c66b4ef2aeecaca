"""Result files are whole or not there."""

import csv
import json
import math

import pytest

from imgcls.evaluation.gathered import number, write_csv, write_json


def test_a_failure_half_way_keeps_the_old_file(tmp_path):
    path = tmp_path / "a" / "table.csv"
    write_csv(path, ["x"], [[1]])

    def rows():
        yield [2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(path, ["x"], rows())
    assert path.read_bytes() == b"x\n1\n"
    assert list(path.parent.iterdir()) == [path]


def test_any_name_survives(tmp_path):
    names = ["a,b", 'q"uote', "line\nbreak", "Äpfel", "not utf-8: \udcff", "", None]
    write_csv(tmp_path / "t.csv", ["name", "n"], [[name, i] for i, name in enumerate(names)])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [*names[:-1], ""]


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"a": number(math.nan), "b": number(12.34567891)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": 12.345679}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "y.json", math.nan)
    assert not (tmp_path / "y.json").exists()
