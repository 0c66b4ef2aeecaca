"""The installer of detectron2, without a network: what it refuses, changes and leaves untouched."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import install_detectron2

    return install_detectron2


@pytest.fixture
def subs(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import detectron2_substitutions

    return detectron2_substitutions


def write_tree(root: Path, files: dict[str, str]) -> dict[str, str]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return files


def make_sdist(folder: Path, files: dict[str, str]) -> Path:
    archive = folder / "pb1-detectron2-0.6.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return archive


def table(subs, *rows):
    return tuple(subs.Substitution(*row, "because") for row in rows)


def test_substitutes_whole_words_only(subs, tmp_path):
    write_tree(tmp_path, {"a.py": "np.int, np.int64, np.int_\n(np.int)\n", "b.py": "x = np.bool  # np.bool\n"})
    subs.apply_substitutions(tmp_path, table(subs, ("a.py", "np.int", "int", 2), ("b.py", "np.bool", "bool", 2)))
    assert (tmp_path / "a.py").read_text() == "int, np.int64, np.int_\n(int)\n"
    assert (tmp_path / "b.py").read_text() == "x = bool  # bool\n"


def test_two_substitutions_in_one_file_both_count(subs, tmp_path):
    write_tree(tmp_path, {"a.py": "import old\nold.f(1)\n"})
    subs.apply_substitutions(tmp_path, table(subs, ("a.py", "import old", "import new", 1), ("a.py", "old.f", "f", 1)))
    assert (tmp_path / "a.py").read_text() == "import new\nf(1)\n"


def test_new_text_is_taken_literally(subs, tmp_path):
    write_tree(tmp_path, {"a.py": "OLD"})
    subs.apply_substitutions(tmp_path, table(subs, ("a.py", "OLD", r"\g<0> \1 \n", 1)))
    assert (tmp_path / "a.py").read_text() == r"\g<0> \1 \n"


@pytest.mark.parametrize("text, found", [("np.str\n", 1), ("np.str np.str np.str\n", 3), ("none\n", 0)])
def test_wrong_count_stops_and_leaves_every_file_as_it_was(subs, tmp_path, text, found):
    before = write_tree(tmp_path, {"first.py": "np.int\n", "second.py": text})
    rows = table(subs, ("first.py", "np.int", "int", 1), ("second.py", "np.str", "str", 2))
    with pytest.raises(subs.SubstitutionError, match=f"second.py has 'np.str' {found} times, not 2"):
        subs.apply_substitutions(tmp_path, rows)
    assert {name: (tmp_path / name).read_text() for name in before} == before


def test_missing_file_stops_and_leaves_every_file_as_it_was(subs, tmp_path):
    write_tree(tmp_path, {"first.py": "np.int\n"})
    rows = table(subs, ("first.py", "np.int", "int", 1), ("gone.py", "np.str", "str", 1))
    with pytest.raises(subs.SubstitutionError, match=r"gone\.py is missing"):
        subs.apply_substitutions(tmp_path, rows)
    assert (tmp_path / "first.py").read_text() == "np.int\n"


def sources_before(subs) -> dict[str, str]:
    """The smallest tree that the real table fits."""
    files: dict[str, str] = {}
    for item in subs.SUBSTITUTIONS:
        files[item.file] = files.get(item.file, "import os\n") + f"{item.old}\n" * item.count
    return files


def test_real_table_fits_once_and_leaves_nothing_of_the_old_names(subs, tmp_path):
    write_tree(tmp_path, sources_before(subs))
    subs.apply_substitutions(tmp_path)
    text = "\n".join(path.read_text() for path in tmp_path.rglob("*.py"))
    assert not any(
        old in text for old in ("np.int\n", "np.float\n", "np.bool\n", "np.str\n", "Image.LINEAR", "pkg_resources")
    )
    with pytest.raises(subs.SubstitutionError):
        subs.apply_substitutions(tmp_path)


def test_call_into_the_missing_extension_says_what_it_needs(subs, tmp_path, monkeypatch):
    guarded = next(item.new for item in subs.SUBSTITUTIONS if item.file.endswith("layers/rotated_boxes.py"))
    write_tree(tmp_path, {"detectron2/__init__.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path))
    code = f"{guarded}\ntry:\n    _C.box_iou_rotated(1, 2)\nexcept ImportError as error:\n    print(error)\n"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "detectron2._C.box_iou_rotated is not in this pure-Python build" in result.stdout


def test_wrong_hash_stops_before_anything_of_the_archive_runs(tool, tmp_path, monkeypatch, capsys):
    trap = tmp_path / "ran"
    archive = make_sdist(tmp_path, {"setup.py": f"open({str(trap)!r}, 'w').close()\n"})
    monkeypatch.setattr(tool, "find_detectron2", lambda: None)
    monkeypatch.setattr(tool, "_pip", lambda *arguments: pytest.fail(f"pip was called: {arguments}"))
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py", "--sdist", str(archive)])
    assert tool.main() == 2
    error = capsys.readouterr().err
    assert str(archive) in error and hashlib.sha256(archive.read_bytes()).hexdigest() in error and tool.SHA256 in error
    assert not trap.exists()


def test_downloaded_file_is_hashed_too(tool, tmp_path, monkeypatch, capsys):
    def fake_pip(command, *arguments):
        assert command == "download", f"pip {command} on an archive with the wrong hash"
        make_sdist(Path(arguments[-1]), {"setup.py": ""})

    monkeypatch.setattr(tool, "find_detectron2", lambda: None)
    monkeypatch.setattr(tool, "_pip", fake_pip)
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    assert tool.main() == 2
    assert "not used" in capsys.readouterr().err


def test_pip_is_given_the_same_hash(tool, tmp_path, monkeypatch):
    seen = []

    def fake_pip(command, *arguments):
        seen.extend([command, *arguments, (tmp_path / "sdist.txt").read_text()])
        make_sdist(tmp_path, {})

    monkeypatch.setattr(tool, "_pip", fake_pip)
    assert tool.download(tmp_path).name == "pb1-detectron2-0.6.tar.gz"
    assert "--require-hashes" in seen and f"pb1-detectron2==0.6 --hash=sha256:{tool.SHA256}\n" in seen


def test_missing_sdist_is_one_clear_line(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "find_detectron2", lambda: None)
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py", "--sdist", str(tmp_path / "none.tar.gz")])
    assert tool.main() == 2
    assert capsys.readouterr().err.startswith(f"error: --sdist {tmp_path / 'none.tar.gz'} is not a file")


def test_changed_sources_with_the_right_hash_still_stop(tool, subs, tmp_path, monkeypatch, capsys):
    archive = make_sdist(tmp_path, sources_before(subs) | {"detectron2/data/build.py": "np.int np.int np.int\n"})
    monkeypatch.setattr(tool, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(tool, "find_detectron2", lambda: None)
    monkeypatch.setattr(tool, "_pip", lambda *arguments: pytest.fail(f"pip was called: {arguments}"))
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py", "--sdist", str(archive)])
    assert tool.main() == 2
    assert "detectron2/data/build.py has 'np.int' 3 times, not 2" in capsys.readouterr().err


def test_wheel_is_pure_and_holds_code_configs_and_projects(tool, subs, tmp_path):
    projects = {"PointRend": "point_rend", "DeepLab": "deeplab", "Panoptic-DeepLab": "panoptic_deeplab"}
    files = sources_before(subs) | {f"projects/{a}/{b}/__init__.py": "" for a, b in projects.items()}
    files |= {f"{Path(name).parent}/__init__.py": "" for name in list(files) if name.startswith("detectron2/")}
    files |= {"detectron2/__init__.py": "", "detectron2/export/__init__.py": "from .api import *\n"}
    files |= {"detectron2/model_zoo/configs/a/b.yaml": "X: 1\n", "detectron2/model_zoo/configs/c.py": "x = 1\n"}
    files |= {"setup.py": "raise SystemExit('the old setup.py ran')\n"}
    wheel = tool.build(make_sdist(tmp_path, files), tmp_path)
    assert wheel.name == f"detectron2-{tool.OUR_VERSION}-py3-none-any.whl"
    raw = subprocess.run([sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True).stdout
    for name in (
        "detectron2/data/build.py",
        "detectron2/model_zoo/configs/a/b.yaml",
        "detectron2/model_zoo/configs/c.py",
        "detectron2/projects/panoptic_deeplab/__init__.py",
    ):
        assert name in raw


def fake_detectron2(root: Path, init: str) -> None:
    modules = {"engine": "DefaultTrainer = 1", "modeling": "META_ARCH_REGISTRY = 1"}
    write_tree(root, {f"detectron2/{name}/__init__.py": text for name, text in modules.items()})
    write_tree(root, {"detectron2/modeling/meta_arch.py": "GeneralizedRCNN = RetinaNet = 1"})
    write_tree(root, {"detectron2/__init__.py": init})


def run_tool(python_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "install_detectron2.py"), "--sdist", "/nonexistent.tar.gz"]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(python_path), "PATH": ""})


def test_a_working_detectron2_is_kept(tmp_path):
    fake_detectron2(tmp_path, "")
    result = run_tool(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert str(tmp_path / "detectron2") in result.stdout and "kept" in result.stdout


def test_a_broken_detectron2_of_the_user_is_not_replaced(tmp_path):
    fake_detectron2(tmp_path, "raise OSError('libtorch.so: undefined symbol')")
    result = run_tool(tmp_path)
    assert result.returncode == 2
    assert str(tmp_path / "detectron2") in result.stderr
    assert "undefined symbol" in result.stderr and "pip uninstall detectron2" in result.stderr


def test_our_own_build_when_broken_is_installed_again(tool, tmp_path):
    fake_detectron2(tmp_path, "raise OSError('half removed')")
    metadata = f"Metadata-Version: 2.1\nName: detectron2\nVersion: {tool.OUR_VERSION}\n"
    write_tree(tmp_path, {f"detectron2-{tool.OUR_VERSION}.dist-info/METADATA": metadata})
    result = run_tool(tmp_path)
    assert "--sdist /nonexistent.tar.gz is not a file" in result.stderr, "it tried to install"
