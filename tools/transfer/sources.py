"""The items that are pasted, and the sample photographs of installed packages that they are pasted on."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.digits import read_digits
from imgcls.data.readers.fashion_mnist import read_fashion_mnist
from imgcls.errors import UserError, UserFileNotFoundError

ITEMS: dict[str, Callable[[str], RawDataset]] = {"fashion_mnist": read_fashion_mnist, "digits": read_digits}

# Package, its folder of images, and the photographs of each split, which share no scene. The first package that has
# all of its files is used. Nothing is downloaded: the files are part of the installed packages.
PHOTOGRAPHS = (
    (
        "skimage",
        "data",
        {
            "train": (
                "astronaut.png",
                "brick.png",
                "grass.png",
                "gravel.png",
                "hubble_deep_field.jpg",
                "motorcycle_left.png",
                "rocket.jpg",
            ),
            "test": ("chelsea.png", "coffee.png"),
        },
    ),
    ("sklearn", "datasets/images", {"train": ("china.jpg",), "test": ("flower.jpg",)}),
)


def find_items() -> str:
    """Returns ``"fashion_mnist"`` if that set is installed, else ``"digits"``.

    Raises:
        UserError: the Fashion-MNIST files are damaged, or their PNG files cannot be written.
    """
    try:
        read_fashion_mnist("test")
    except UserFileNotFoundError:
        return "digits"
    return "fashion_mnist"


def find_photographs() -> dict[str, list[Path]]:
    """Returns the photographs of each split, ``"train"`` and ``"test"``.

    Raises:
        UserError: neither scikit-image nor scikit-learn is installed with its sample photographs.
    """
    for package, folder, names in PHOTOGRAPHS:
        spec = find_spec(package)  # finds the files without the second that importing scikit-image takes
        for root in (spec.submodule_search_locations or ()) if spec else ():
            found = {split: [Path(root, folder, name) for name in names[split]] for split in names}
            if all(path.is_file() for paths in found.values() for path in paths):
                return found
    raise UserError(
        "the backgrounds are the sample photographs of scikit-image or scikit-learn, and neither "
        'is installed: pip install -e ".[demo]"'
    )
