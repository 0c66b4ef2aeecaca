import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """The version, read without importing the package, which needs detectron2."""
    text = (ROOT / "imgcls" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


readme = ROOT / "README.md"

setup(
    name="imgcls",
    version=version(),
    description="Image classification for detectron2: train a MobileNet backbone, hand it to a detector",
    long_description=readme.read_text(encoding="utf-8") if readme.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["imgcls", "imgcls.*"]), "imgcls.configs"],
    # The checkout's configs/ becomes imgcls/configs/ in the wheel; imgcls.model_zoo finds either.
    package_dir={"imgcls.configs": "configs"},
    package_data={
        "imgcls.configs": ["*.yaml", "*/*.yaml", "complexity.json"],
        "imgcls.inference": ["static/*"],
        "imgcls.report": ["static/*"],
    },
    entry_points={"console_scripts": ["imgcls = imgcls.__main__:main"]},
    python_requires=">=3.10",
    # Two requirements are not listed, because pip might replace a build made for the user's machine or fail to find
    # it: detectron2 (the package index has no release of that name; see tools/install_detectron2.py) and OpenCV (four
    # packages provide `cv2`). scripts/install.sh installs both where they are missing.
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "fvcore>=0.1.5.post20221221",
        "yacs>=0.1.8",
        "torchmetrics>=1.4,<2",
        "numpy>=1.26,<3",
        "Pillow>=10",
        "tqdm>=4.60",
        "matplotlib>=3.8",
    ],
    extras_require={
        "demo": ["scikit-learn>=1.4", "scikit-image>=0.22"],
        "export": ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.18", "openvino>=2024.4"],
        "cam": ["captum>=0.7"],
        "parquet": ["pyarrow>=15"],
        "serve": ["gradio>=6.31,<7"],
        "shards": ["webdataset>=0.2.86"],
        "timm": ["timm>=1.0"],
        "wandb": ["wandb>=0.31"],
        # Without the server, its pages and its models; the last two are for sqlite, the default store.
        "mlflow": ["mlflow-skinny>=3.17", "sqlalchemy>=2", "alembic>=1.10"],
        "docs": ["sphinx>=7", "myst-parser>=3", "furo>=2024", "nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6"],
        "dev": [
            "coverage>=7.10",  # measures subprocesses
            "mypy>=1.15",
            "playwright>=1.40",  # drives the browser that opens the report in a test
            "pytest>=8",
            "pytest-cov>=5",
            "pytest-xdist>=3.5",
            "ruff>=0.8",
            "types-PyYAML>=6",
            "types-tqdm>=4.60",
        ],
    },
)
