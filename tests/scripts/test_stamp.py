"""The record by which scripts/install.sh recognises a finished installation."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stamp(tmp_path, monkeypatch):
    """scripts/stamp.py of a small checkout, in an environment where everything can be found."""
    spec = importlib.util.spec_from_file_location("stamp", ROOT / "scripts" / "stamp.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.INSTALL_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    package = importlib.machinery.ModuleSpec("imgcls", None, origin=str(tmp_path / "imgcls" / "__init__.py"))
    monkeypatch.setattr(module, "find_spec", lambda name: package)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "STAMP", tmp_path / "stamp.json")
    return module


def run_stamp(module, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["stamp.py", *arguments])
    return module.main()


def test_second_run_is_recognised_with_the_extras_of_all_runs_so_far(stamp, monkeypatch):
    assert run_stamp(stamp, monkeypatch, "check", "demo") == 1
    run_stamp(stamp, monkeypatch, "write", "demo")
    assert run_stamp(stamp, monkeypatch, "check", "demo") == 0
    assert run_stamp(stamp, monkeypatch, "check", "demo,dev") == 1
    run_stamp(stamp, monkeypatch, "write", "dev")
    assert run_stamp(stamp, monkeypatch, "check", "demo,dev") == 0


def test_a_changed_install_file_sets_up_again(stamp, monkeypatch):
    run_stamp(stamp, monkeypatch, "write", "demo")
    for name in stamp.INSTALL_FILES:
        (stamp.ROOT / name).write_text("changed")
        assert run_stamp(stamp, monkeypatch, "check", "demo") == 1, name
        (stamp.ROOT / name).write_text(name)
    assert run_stamp(stamp, monkeypatch, "check", "demo") == 0


@pytest.mark.parametrize("lost", ["torch", "detectron2", "cv2", "sklearn", "skimage", "imgcls"])
def test_lost_package_sets_up_again(stamp, monkeypatch, lost):
    run_stamp(stamp, monkeypatch, "write", "demo")
    found = stamp.find_spec("imgcls")
    monkeypatch.setattr(stamp, "find_spec", lambda name: None if name == lost else found)
    assert run_stamp(stamp, monkeypatch, "check", "demo") == 1


def test_another_checkouts_package_sets_up_again(stamp, monkeypatch):
    run_stamp(stamp, monkeypatch, "write", "demo")
    other = importlib.machinery.ModuleSpec("imgcls", None, origin="/elsewhere/imgcls/__init__.py")
    monkeypatch.setattr(stamp, "find_spec", lambda name: other)
    assert run_stamp(stamp, monkeypatch, "check", "demo") == 1


def test_damaged_stamp_sets_up_again(stamp, monkeypatch):
    for text in ("", "[]", '{"key": 1}'):
        stamp.STAMP.write_text(text)
        assert run_stamp(stamp, monkeypatch, "check", "demo") == 1
