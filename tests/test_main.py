"""The command `imgcls` and the scripts of the checkout: verbs, help, and missing packages."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls.__main__ import VERBS, main

ROOT = Path(__file__).parent.parent
SCRIPTS = {
    "train_net_builtin.py": "train",
    "train_net.py": "train-plain",
    "tools/predict.py": "predict",
    "tools/evaluate_model.py": "eval",
    "tools/export.py": "export",
    "tools/serve.py": "serve",
    "tools/detect_classify.py": "detect-classify",
    "tools/convert_weights.py": "convert",
    "tools/export_backbone.py": "export-backbone",
    "tools/pack_dataset.py": "pack",
    "tools/report.py": "report",
    "tools/make_imagenet_json.py": "make-imagenet-json",
    "tools/model_complexity.py": "complexity",
}


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_verbs_are_listed_with_one_line_each(capsys, arguments):
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, (_, text) in VERBS.items():
        assert [line for line in lines if line.startswith(f"  {verb} ")] == [f"  {verb:18}  {text}"]


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_ends_with_an_example(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and printed.startswith(f"usage: imgcls {verb} ")
    assert f"\n\nexample:\n  imgcls {verb} " in printed


@pytest.mark.parametrize(
    ("verb", "advice"), [("tarin", "did you mean train?"), ("exprt", "did you mean"), ("x", "allowed: train, train-p")]
)
def test_an_unknown_verb_is_one_line_and_exit_code_2(capsys, verb, advice):
    assert main([verb]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: imgcls has no verb {verb!r}; {advice}") and error.count("\n") == 1


def test_there_is_a_script_for_every_verb():
    assert sorted(SCRIPTS.values()) == sorted(VERBS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_the_function_of_its_verb(monkeypatch, script):
    module = importlib.import_module(f"imgcls.cli.{VERBS[SCRIPTS[script]][0]}")
    monkeypatch.setattr(module, "main", lambda argv=None: 3)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stop.value.code == 3


@pytest.fixture
def run_without(tmp_path):
    """``run_without("cv2", "-m", "imgcls")``: Python in a process that cannot find a module."""

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "sitecustomize.py").write_text(
            "from importlib.machinery import PathFinder\n"
            "real = PathFinder.find_spec\n"
            f"hide = lambda name, *rest: None if name.split('.')[0] == {module!r} else real(name, *rest)\n"
            "PathFinder.find_spec = staticmethod(hide)\n"
        )
        paths = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.fixture
def console_script(tmp_path):
    """The script that pip writes for an entry point of the name `imgcls`."""
    path = tmp_path / "bin" / "imgcls"
    path.parent.mkdir()
    path.write_text("import sys\nfrom imgcls.__main__ import main\nsys.exit(main())\n")
    return str(path)


@pytest.mark.parametrize(("module", "advice"), [("detectron2", "tools/install_detectron2.py"), ("cv2", "pip install")])
def test_a_command_without_a_required_package_is_one_line_and_exit_code_2(run_without, console_script, module, advice):
    for command in (["-m", "imgcls", "report", "x"], [console_script, "train"], ["train_net.py"], ["tools/report.py"]):
        result = run_without(module, *command)
        assert (result.returncode, result.stdout) == (2, ""), command
        assert result.stderr.startswith("error: imgcls needs ") and advice in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["detectron2", "cv2"])
def test_a_users_program_gets_an_exception_that_it_can_catch(run_without, module):
    code = "try:\n    import imgcls\nexcept ModuleNotFoundError as error:\n    print(error.name, str(error)[:12])"
    result = run_without(module, "-c", code)
    assert (result.returncode, result.stdout) == (0, f"{module} imgcls needs\n")


def test_the_list_of_verbs_needs_neither_torch_nor_detectron2(run_without, console_script):
    for command in (["-m", "imgcls"], ["-m", "imgcls", "--help"], [console_script, "-h"]):
        result = run_without("torch", *command)
        assert result.returncode == 0 and "  train-plain " in result.stdout and result.stderr == ""
