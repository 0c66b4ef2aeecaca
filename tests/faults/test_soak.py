import re

import soak
from harness.survive import SCRIPTS, Job


def test_what_it_prints_and_returns(images, tmp_path, capsys):
    assert soak.soak([Job(script, images) for script in SCRIPTS], 3, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    kills = [line for line in lines if line.startswith("kill ")]
    assert len(kills) == 3
    assert all(re.search(r", \d+\.\d\d s .*; (resumes after iteration \d+|starts again)$", line) for line in kills)
    runs = re.fullmatch(r"3 kills; (\d+) of (\d+) runs ended with the bits of an uninterrupted one", lines[-1])
    assert runs[1] == runs[2]


def test_other_bits_are_its_failure(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(soak, "differences", lambda whole, run: [".model_best.pth.model"])
    assert soak.soak([Job(SCRIPTS[0], images)], 0, tmp_path) == 1
    said = capsys.readouterr().out
    assert "not the same: .model_best.pth.model\n0 kills; 0 of 1 runs ended" in said
