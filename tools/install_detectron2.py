#!/usr/bin/env python3
"""Installs detectron2 where none imports: version 0.6 without its compiled extension, no compiler needed.

    python tools/install_detectron2.py [--sdist FILE]

A detectron2 that imports, the official build included, is kept. Otherwise the official 0.6 sources are
taken from the Python package index, checked against a fixed SHA-256 before anything in them runs, changed as
``detectron2_substitutions.py`` says, and installed as a pure-Python wheel. Uses only the standard library
and pip; PyTorch, setuptools and wheel have to be installed first.
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
    """Where the detectron2 is that imports, or None where there is none.

    Raises:
        InstallError: one is there that does not import and that this tool did not install.
    """
    result = _python("import importlib.util as u; s = u.find_spec('detectron2'); print(s and s.origin or '')")
    place = result.stdout.strip()
    if result.returncode or not place:
        return None
    proof = _python(PROOF)
    if proof.returncode == 0:
        return place
    if _is_ours(Path(place).parent):
        return None
    raise InstallError(
        f"the detectron2 in {place} does not import ({_last_line(proof.stderr)}); repair it, or remove it "
        "with `python -m pip uninstall detectron2` and run this again"
    )


def download(folder: Path) -> Path:
    """Lets pip fetch the pinned source archive into ``folder``; pip checks its hash before it reads its metadata."""
    wanted = folder / "sdist.txt"
    wanted.write_text(f"{SDIST} --hash=sha256:{SHA256}\n", encoding="utf-8")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    _pip("download", *options, "-r", str(wanted), "-d", str(folder))
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise InstallError(f"pip fetched {[a.name for a in archives]} instead of one .tar.gz of {SDIST}")
    return archives[0]


def verify(archive: Path) -> None:
    """Refuses an archive that is not, byte for byte, the known one."""
    if not archive.is_file():
        raise InstallError(f"--sdist {archive} is not a file; give the .tar.gz of {SDIST}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise InstallError(f"{archive} has SHA-256 {found}, not {SHA256}: not used; fetch {SDIST} again")


def build(archive: Path, folder: Path) -> Path:
    """Unpacks, substitutes and builds below ``folder``; returns the wheel."""
    with tarfile.open(archive) as tar:
        # Python 3.10.0 to 3.10.11 and 3.11.0 to 3.11.3 lack the filter; the hash already vouches for the content.
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
    """Builds the wheel from ``sdist``, or from a fresh download, installs it and proves that it imports."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        archive = sdist or download(folder)
        verify(archive)
        wheel = build(archive, folder)
        if _installed_version() == OUR_VERSION:
            # It is broken, or we would not be here, and pip leaves a version that is there as it is.
            _pip("uninstall", "-y", "detectron2")
        constraints = ["-c", str(CONSTRAINTS)] if CONSTRAINTS.is_file() else []
        _pip("install", *constraints, str(wheel))
    proof = _python(PROOF)
    if proof.returncode:
        raise InstallError(f"detectron2 was installed but does not import: {_last_line(proof.stderr)}")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    # From an empty folder: `-c` puts the current one on the path, and a clone of detectron2 in it is not installed.
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run([sys.executable, "-c", code], cwd=empty, capture_output=True, text=True)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    if subprocess.run(command).returncode:
        raise InstallError(f"`pip {arguments[0]}` failed (its message is above)")


def _installed_version() -> str | None:
    try:
        return metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        return None


def _is_ours(folder: Path) -> bool:
    """Whether the package in ``folder`` is the one that this tool installed, not another one before it on the path."""
    if _installed_version() != OUR_VERSION:
        return False
    return Path(metadata.distribution("detectron2").locate_file("detectron2")).resolve() == folder.resolve()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def main() -> int:
    """Runs the tool; returns its exit code: 0 done or nothing to do, 2 with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sdist", type=Path, help=f"an already downloaded .tar.gz of {SDIST}")
    args = parser.parse_args()
    try:
        place = find_detectron2()
        if place is not None:
            print(f"detectron2 {_installed_version() or ''} in {Path(place).parent} imports: kept".replace("  ", " "))
            return 0
        install(args.sdist)
    except (InstallError, SubstitutionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"detectron2 {OUR_VERSION} installed: DefaultTrainer, RetinaNet and Faster R-CNN import.\n"
        "Not compiled: its extension detectron2._C.\n"
        "That means: no rotated boxes and no deformable convolution, and COCO evaluation at pycocotools' own speed.\n"
        f"The official build instead: pip uninstall detectron2, then follow {OFFICIAL}/blob/main/INSTALL.md"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
