"""`imgcls complexity`: the table, the file, and a name that does not exist."""

import json

from imgcls.model_zoo import config_folder
from imgcls.report.complexity import table_rows


def test_the_command_prints_the_table_and_saves_the_counts(run_verb, tmp_path):
    names = ["quickstart/digits_mnetv1_025.yaml", str(config_folder() / "ImageNet" / "mnetv1_025.yaml")]
    code, printed, _ = run_verb("complexity", *names, "--save", tmp_path / "counts.json")
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert code == 0 and printed.splitlines() == table_rows(counts)
    goldens = json.loads((config_folder() / "complexity.json").read_text())
    assert list(counts) == names
    assert list(counts.values()) == [goldens[names[0]], goldens["ImageNet/mnetv1_025.yaml"]]
    code, printed, error = run_verb("complexity", "ImageNet/mnetv9.yaml")
    assert (code, printed) == (2, "") and error.startswith("error: CONFIG ImageNet/mnetv9.yaml: no such file, and no")
