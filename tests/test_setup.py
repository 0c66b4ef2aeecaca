"""The set-up files agree with each other. (What they install is proven by running them.)"""

import runpy
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture
def arguments(monkeypatch):
    """What setup.py hands to setuptools."""
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
    assert set(arguments["packages"]) == {".".join(folder.parts) for folder in folders}


def test_extras_are_those_of_the_design(arguments):
    names = {extra: {Requirement(r).name for r in rs} for extra, rs in arguments["extras_require"].items()}
    assert names == {
        "demo": {"scikit-learn", "scikit-image"},
        "export": {"onnx", "onnxruntime"},
        "shards": {"webdataset"},
        "timm": {"timm"},
        "dev": {"pytest", "ruff", "pytest-cov"},
    }


def test_builds_that_people_make_themselves_are_not_requirements(arguments):
    names = {canonicalize_name(Requirement(r).name) for r in arguments["install_requires"]}
    assert {"torch", "torchvision", "fvcore", "yacs", "torchmetrics", "numpy", "pillow", "tqdm", "matplotlib"} == names


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_satisfy_the_bounds(arguments, python):
    pinned = pins(python)
    wanted = list(arguments["install_requires"])
    for extra in ("demo", "dev", "shards", "timm"):
        wanted += arguments["extras_require"][extra]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier, f"{requirement.name} has no bound"
        if requirement.name in ("torch", "torchvision"):
            assert requirement.name not in pinned, "the user's build is kept"
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
