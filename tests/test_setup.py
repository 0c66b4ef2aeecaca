"""The set-up files agree with each other."""

import runpy
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture
def arguments(monkeypatch):
    """The arguments that setup.py passes to setuptools."""
    seen = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: seen.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return seen


def pins(python: str) -> dict[str, str]:
    """The constraints that hold for one Python version: name to version."""
    found: dict[str, str] = {}
    for line in (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{name} is pinned twice for Python {python}"
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            found[name] = specifier.version
    return found


def test_version_is_read_without_importing_the_package(arguments):
    assert arguments["version"] == "0.1.0"
    assert arguments["name"] == "imgcls"


def test_every_folder_of_the_package_is_installed_and_nothing_else(arguments):
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "imgcls").rglob("*.py")}
    assert set(arguments["packages"]) == {".".join(folder.parts) for folder in folders} | {"imgcls.configs"}


@pytest.mark.parametrize(("part", "count"), [("inference", 4), ("report", 2)])
def test_the_files_of_the_pages_are_installed(arguments, part, count):
    folder = ROOT / "imgcls" / part
    found = {path for pattern in arguments["package_data"][f"imgcls.{part}"] for path in folder.glob(pattern)}
    assert found == {path for path in folder.rglob("*") if path.suffix in (".css", ".html", ".js")}
    assert len(found) == count


def test_every_config_is_installed(arguments):
    folder = ROOT / arguments["package_dir"]["imgcls.configs"]
    found = {path for pattern in arguments["package_data"]["imgcls.configs"] for path in folder.glob(pattern)}
    assert found == {path for path in folder.rglob("*") if path.is_file()}


def test_extras_are_those_of_the_design(arguments):
    names = {extra: {Requirement(r).name for r in rs} for extra, rs in arguments["extras_require"].items()}
    assert names == {
        "demo": {"scikit-learn", "scikit-image"},
        "export": {"onnx", "onnxscript", "onnxruntime", "openvino"},
        "cam": {"captum"},
        "parquet": {"pyarrow"},
        "serve": {"gradio"},
        "shards": {"webdataset"},
        "timm": {"timm"},
        "wandb": {"wandb"},
        "mlflow": {"mlflow-skinny", "sqlalchemy", "alembic"},
        "docs": {"sphinx", "myst-parser", "furo", "nbclient", "nbformat", "ipykernel"},
        "dev": {
            "coverage",
            "mypy",
            "playwright",
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "ruff",
            "types-PyYAML",
            "types-tqdm",
        },
    }


def test_detectron2_and_opencv_are_not_requirements(arguments):
    names = {canonicalize_name(Requirement(r).name) for r in arguments["install_requires"]}
    assert {"torch", "torchvision", "fvcore", "yacs", "torchmetrics", "numpy", "pillow", "tqdm", "matplotlib"} == names


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_satisfy_the_bounds(arguments, python):
    pinned = pins(python)
    wanted = list(arguments["install_requires"])
    for extra in ("cam", "demo", "dev", "parquet", "serve", "shards", "timm", "wandb", "mlflow"):
        wanted += arguments["extras_require"][extra]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier, f"{requirement.name} has no bound"
        if requirement.name in ("torch", "torchvision"):
            assert requirement.name not in pinned, "the user's build is left untouched"
        else:
            name = canonicalize_name(requirement.name)
            assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"


def test_constraints_cover_opencv_and_what_detectron2_needs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import install_detectron2

    seen = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: seen.update(given))
    monkeypatch.setattr(setuptools, "find_packages", lambda **_: [])
    exec(install_detectron2.SETUP, {})
    assert seen["name"] == "detectron2" and seen["version"] == install_detectron2.OUR_VERSION
    for python in PYTHONS:
        pinned = pins(python)
        assert "opencv-python-headless" in pinned
        for requirement in map(Requirement, seen["install_requires"]):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_what_mypy_needs_is_pinned():
    """pip would otherwise take the newest of these, and mypy depends on their exact versions."""
    assert {"mypy", "mypy-extensions", "pathspec", "librt", "ast-serialize"} <= set(pins("3.11"))


def test_pre_commit_runs_what_ci_runs():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local", "the hooks run in the active environment, with its versions"
    *commits, push = repo["hooks"]
    assert push["entry"] == "bash scripts/test.sh" and push["stages"] == ["pre-push"]
    script = (ROOT / "scripts" / "test.sh").read_text(encoding="utf-8")
    checks = [
        line.removeprefix('"$PYTHON" ')
        for line in script.splitlines()
        if line.startswith('"$PYTHON"') and "pytest" not in line
    ]
    assert [hook["entry"] for hook in commits] == [f"python {check}" for check in checks] != []
