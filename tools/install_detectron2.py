#!/usr/bin/env python3
"""Installs detectron2 0.6 without its compiled extension, if no detectron2 can be imported. Needs no compiler.

    python tools/install_detectron2.py [--sdist FILE]

A working detectron2, such as the official build, is left untouched. Otherwise the official 0.6 sources are
downloaded from the Python package index, checked against a fixed SHA-256 before any of their code runs, changed
according to ``detectron2_substitutions.py``, and installed as a pure-Python wheel. Uses only the standard library
and pip; PyTorch, setuptools and wheel must be installed first.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from detectron2_substitutions import SubstitutionError, apply_substitutions

SDIST = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
OFFICIAL = "https://github.com/facebookresearch/detectron2"
OUR_VERSION = "0.6+imgcls.pure"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "scripts" / "constraints.txt"

SETUP = f'''\
from pathlib import Path
from setuptools import find_packages, setup

projects = {{
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}}
zoo = Path("detectron2/model_zoo")
setup(
    name="detectron2",
    version="{OUR_VERSION}",
    description="detectron2 0.6 as pure Python: changed by imgcls for current packages, extension not compiled",
    url="{OFFICIAL}",
    license="Apache-2.0",
    packages=find_packages(include=["detectron2", "detectron2.*"]) + list(projects),
    package_dir=projects,
    package_data={{"detectron2.model_zoo": [str(f.relative_to(zoo)) for f in zoo.rglob("configs/**/*.*")]}},
    python_requires=">=3.10",
    install_requires=[
        "Pillow>=9.1",
        "cloudpickle",
        "fvcore>=0.1.5,<0.1.6",
        "hydra-core>=1.1",
        "iopath>=0.1.7,<0.1.10",
        "matplotlib",
        "numpy",
        "omegaconf>=2.1,<2.4",
        "pycocotools>=2.0.2",
        "tabulate",
        "tensorboard",
        "termcolor>=1.1",
        "tqdm>4.29.0",
        "yacs>=0.1.8",
    ],
)
'''

PROOF = """\
from detectron2.engine import DefaultTrainer
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
"""


class InstallError(Exception):
    """detectron2 cannot be installed; the message says what to do."""


def find_detectron2() -> str | None:
    """The file of a detectron2 that can be imported, or None if none is installed or our own build is broken.

    Raises:
        InstallError: a detectron2 that this tool did not install cannot be imported.
    """
    result = _python("import importlib.util as u; s = u.find_spec('detectron2'); print(s and s.origin or '')")
    origin = result.stdout.strip()
    if result.returncode or not origin:
        return None
    proof = _python(PROOF)
    if proof.returncode == 0:
        return origin
    if _is_ours(Path(origin).parent):
        return None
    raise InstallError(
        f"the detectron2 in {origin} cannot be imported ({_last_line(proof.stderr)}); repair it, or remove it "
        "with `python -m pip uninstall detectron2` and run this again"
    )


def download(folder: Path) -> Path:
    """Downloads the pinned source archive into ``folder``; pip checks its hash before reading its metadata."""
    wanted = folder / "sdist.txt"
    wanted.write_text(f"{SDIST} --hash=sha256:{SHA256}\n", encoding="utf-8")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    _pip("download", *options, "-r", str(wanted), "-d", str(folder))
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise InstallError(f"pip downloaded {[a.name for a in archives]} instead of one .tar.gz of {SDIST}")
    return archives[0]


def verify(archive: Path) -> None:
    """Raises unless the archive has the known hash."""
    if not archive.is_file():
        raise InstallError(f"--sdist {archive} is not a file; give the .tar.gz of {SDIST}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise InstallError(f"{archive} has SHA-256 {found}, not {SHA256}: not used; download {SDIST} again")


def build(archive: Path, folder: Path) -> Path:
    """Unpacks, substitutes and builds below ``folder``; returns the wheel."""
    with tarfile.open(archive) as tar:
        # Python 3.10.0 to 3.10.11 and 3.11.0 to 3.11.3 lack the filter; the hash has proved the content.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder)
    source = folder / archive.name.removesuffix(".tar.gz")
    apply_substitutions(source)
    (source / "setup.py").write_text(SETUP, encoding="utf-8")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n', encoding="utf-8"
    )
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source))
    return next(folder.glob("detectron2-*.whl"))


def install(sdist: Path | None) -> None:
    """Builds the wheel from ``sdist`` or from a download, installs it and checks that it can be imported."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        archive = sdist or download(folder)
        verify(archive)
        wheel = build(archive, folder)
        if _installed_version() == OUR_VERSION:
            # Our broken build has the same version, and pip would not replace it.
            _pip("uninstall", "-y", "detectron2")
        constraints = ["-c", str(CONSTRAINTS)] if CONSTRAINTS.is_file() else []
        _pip("install", *constraints, str(wheel))
    proof = _python(PROOF)
    if proof.returncode:
        raise InstallError(f"detectron2 was installed but cannot be imported: {_last_line(proof.stderr)}")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    # In an empty folder, because `-c` puts the current one on the path: a clone of detectron2 there is not installed.
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run([sys.executable, "-c", code], cwd=empty, capture_output=True, text=True)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    if subprocess.run(command).returncode:
        raise InstallError(f"`pip {arguments[0]}` failed (see its message above)")


def _installed_version() -> str | None:
    try:
        return metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        return None


def _is_ours(folder: Path) -> bool:
    """Whether this tool installed the package in ``folder``; another one may precede ours on the path."""
    if _installed_version() != OUR_VERSION:
        return False
    return Path(metadata.distribution("detectron2").locate_file("detectron2")).resolve() == folder.resolve()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def main() -> int:
    """Runs the tool; returns 0 if detectron2 can be imported, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sdist", type=Path, help=f"the .tar.gz of {SDIST}, if it has been downloaded")
    args = parser.parse_args()
    try:
        origin = find_detectron2()
        if origin is not None:
            version = f" {_installed_version() or ''}".rstrip()
            print(f"detectron2{version} in {Path(origin).parent} works and is kept")
            return 0
        install(args.sdist)
    except (InstallError, SubstitutionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"detectron2 {OUR_VERSION} installed; DefaultTrainer, RetinaNet and Faster R-CNN can be imported.\n"
        "Its extension detectron2._C is not compiled: there are no rotated boxes and no deformable convolution, and "
        "COCO evaluation is as fast as pycocotools.\n"
        f"For the official build: pip uninstall detectron2, then follow {OFFICIAL}/blob/main/INSTALL.md"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
