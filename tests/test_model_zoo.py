"""Configs by name."""

from pathlib import Path

import pytest

from imgcls import model_zoo
from imgcls.errors import UserFileNotFoundError

ROOT = Path(__file__).parent.parent


def test_the_names_are_the_files_of_the_checkout():
    names = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert set(model_zoo.config_names()) == names and "ImageNet/mnetv1_100.yaml" in names
    assert Path(model_zoo.get_config_file("ImageNet/mnetv1_100.yaml")).samefile(
        ROOT / "configs/ImageNet/mnetv1_100.yaml"
    )


def test_a_config_is_merged_with_its_base_and_with_settings():
    cfg = model_zoo.get_config("ImageNet/mnetv1_025.yaml", ["SEED", "3"])
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.MNET.WIDTH_MULT, cfg.SEED) == ("ClsNet", 0.25, 3)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(
        UserFileNotFoundError, match=r"no config ImageNet/mnetv1_10\.yaml; did you mean ImageNet/mnetv1_"
    ):
        model_zoo.get_config_file("ImageNet/mnetv1_10.yaml")
    with pytest.raises(UserFileNotFoundError, match="listed by `imgcls complexity`"):
        model_zoo.get_config_file("../setup.py")


def test_a_file_is_preferred_to_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "ImageNet/mnetv1_100.yaml"
    assert model_zoo.find_config_file("") == ""
    assert model_zoo.find_config_file(name) == model_zoo.get_config_file(name)
    (tmp_path / "ImageNet").mkdir()
    (tmp_path / name).write_text("SEED: 1")
    assert model_zoo.find_config_file(name) == name
    with pytest.raises(
        UserFileNotFoundError, match=r"^--verify gone\.yaml: no such file, and no config of the model zoo"
    ):
        model_zoo.find_config_file("gone.yaml", "--verify")


def test_the_configs_of_an_installed_package_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(model_zoo, "_PACKAGE", tmp_path / "imgcls")
    assert model_zoo.config_folder() == tmp_path / "configs"
    (tmp_path / "imgcls" / "configs").mkdir(parents=True)
    assert model_zoo.config_folder() == tmp_path / "imgcls" / "configs"
