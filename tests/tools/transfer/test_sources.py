import hashlib
import json
from types import SimpleNamespace

import pytest
from transfer import sources
from transfer.sources import PHOTOGRAPHS, find_items, find_photographs

from imgcls.data.image import read_image
from imgcls.data.readers import fashion_mnist
from imgcls.errors import UserError


def install(monkeypatch, folder, *packages):
    """Makes only these packages appear installed, with all their photographs."""
    for package, below, names in PHOTOGRAPHS:
        if package in packages:
            (folder / package / below).mkdir(parents=True)
            for name in (*names["train"], *names["test"]):
                (folder / package / below / name).write_bytes(b"")
    specs = {package: SimpleNamespace(submodule_search_locations=[str(folder / package)]) for package in packages}
    monkeypatch.setattr(sources, "find_spec", specs.get)


@pytest.mark.parametrize("index", range(len(PHOTOGRAPHS)))
def test_the_installed_photographs(monkeypatch, index):
    """Large enough, none in both splits, and colour in each."""
    monkeypatch.setattr(sources, "PHOTOGRAPHS", PHOTOGRAPHS[index : index + 1])
    found = find_photographs()
    assert set(found) == {"train", "test"}
    paths = found["train"] + found["test"]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == len(paths)
    for split in found.values():
        photographs = [read_image(str(path)) for path in split]
        assert all(min(photograph.shape[:2]) >= 300 for photograph in photographs)
        assert any((photograph[:, :, 0] != photograph[:, :, 2]).mean() > 0.5 for photograph in photographs)


def test_scikit_image_is_preferred(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "skimage", "sklearn")
    assert find_photographs()["train"][0] == tmp_path / "skimage" / "data" / "astronaut.png"


@pytest.mark.parametrize("damaged", [False, True])
def test_scikit_learn_is_used_if_scikit_image_is_incomplete(monkeypatch, tmp_path, damaged):
    install(monkeypatch, tmp_path, "sklearn", *(["skimage"] if damaged else []))
    if damaged:
        (tmp_path / "skimage" / "data" / "chelsea.png").unlink()
    folder = tmp_path / "sklearn" / "datasets" / "images"
    assert find_photographs() == {"train": [folder / "china.jpg"], "test": [folder / "flower.jpg"]}


def test_without_photographs_the_message_has_the_command(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r'scikit-image or scikit-learn, and neither .*pip install -e "\.\[demo\]"'):
        find_photographs()


def test_items_are_digits_if_fashion_mnist_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    assert find_items() == "digits"
    folder = tmp_path / "datasets" / "imgcls" / "fashion_mnist"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps([{"file_name": "1.png", "label": 0}]))
    assert find_items() == "fashion_mnist"
