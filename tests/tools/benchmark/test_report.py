"""Figures as text, JSON and bars."""

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmark.compare import Table
from benchmark.report import Report, table_lines, write_report
from PIL import Image

from imgcls.errors import UserError

SPEED = Table("speed", "images/s", {"imgcls": [300, 400, 500], "peer": [100, 100, 250]}, ["peer"])
PLAIN = Table("memory", "MB", {"imgcls": [0.0], "peer": [0.123]})


def test_the_json_has_every_round_and_the_ratios(tmp_path, capsys):
    path = tmp_path / "deep" / "out.json"
    write_report(Report("input", [SPEED, PLAIN], {"level": 0.25}), {"cores": 2}, path)
    content = json.loads(path.read_text())
    assert (content["what"], content["machine"], content["facts"]) == ("input", {"cores": 2}, {"level": 0.25})
    ours, peer = content["tables"][0]["rows"]
    assert ours["rounds"] == [300, 400, 500] and ours["median"] == 400
    by_round = np.array(ours["rounds"]) / peer["rounds"]
    assert ours["ratio"]["peer"]["median"] == np.median(by_round) == 3
    assert ours["ratio"]["peer"]["lower_quartile"] == np.quantile(by_round, 0.25)
    assert content["tables"][1]["rows"][1]["ratio"] == {}
    out = capsys.readouterr().out
    assert "level: 0.25" in out and "machine: cores 2" in out and str(path) in out


def test_bars_are_drawn_next_to_it(tmp_path):
    write_report(Report("input", [SPEED, PLAIN]), {}, tmp_path / "out.json")
    with Image.open(tmp_path / "out.png") as image:
        assert image.format == "PNG" and image.width > 500 and image.height > 200
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {(0x1F, 0x6F, 0xB4), (0x8A, 0x8F, 0x98)} <= colours  # ours and a peer's


def test_a_line_has_median_quartiles_and_ratio():
    lines = table_lines(SPEED)
    assert lines[0].split() == ["speed", "images/s", "quartiles", "x", "peer"]
    assert lines[1].split() == ["imgcls", "400", "350", "-", "450", "3.00", "(2.50", "-", "3.50)"]
    assert lines[2].split() == ["peer", "100", "100", "-", "175", "1.00", "(1.00", "-", "1.00)"]
    assert lines[3] == "rounds: 3"
    assert table_lines(replace(SPEED, planned=3))[3] == "rounds: 3"
    assert table_lines(replace(SPEED, planned=9))[3] == "rounds: 3 of 9; the time was up (--minutes)"
    assert len({len(line) for line in lines[:3]}) == 1
    assert "0.123" in table_lines(PLAIN)[2]
    assert "0.012 (0.012 - 0.012)" in table_lines(Table("load", "s", {"a": [0.012], "b": [1]}, ["b"]))[1]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(Report("input", [SPEED]), {}, tmp_path / "file" / "out.json")
