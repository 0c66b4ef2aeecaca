import logging

import pytest

from imgcls.config import get_cfg, load_cfg
from imgcls.config.load import feature_names


@pytest.fixture
def yaml_file(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_file_base_and_command_line_are_merged_in_that_order(yaml_file):
    yaml_file("MODEL:\n  MNET:\n    WIDTH_MULT: 0.5\n    STEM_STRIDE: 1\nSEED: 3\n", "base.yaml")
    path = yaml_file("_BASE_: base.yaml\nMODEL:\n  MNET:\n    WIDTH_MULT: 0.75\n")
    cfg = load_cfg(path, ["SEED", "5"])
    assert (cfg.MODEL.MNET.WIDTH_MULT, cfg.MODEL.MNET.STEM_STRIDE, cfg.SEED) == (0.75, 1, 5)


def test_no_file_and_no_options_give_the_default():
    assert load_cfg("") == get_cfg()


def test_values_of_overrides_may_be_python_objects():
    cfg = load_cfg("", ["SOLVER.BASE_LR", 0.5, "DATASETS.TRAIN", ("folder:x",)])
    assert (cfg.SOLVER.BASE_LR, cfg.DATASETS.TRAIN) == (0.5, ("folder:x",))


def test_a_missing_file_or_base_is_an_error(yaml_file):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        load_cfg("nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"_BASE_ .*gone\.yaml does not exist"):
        load_cfg(yaml_file("_BASE_: gone.yaml\n"))


def test_an_unknown_key_is_reported_with_the_nearest_one(yaml_file):
    path = yaml_file("MODEL:\n  MNET:\n    WIDHT_MULT: 0.5\n")
    with pytest.raises(ValueError, match=r"MODEL\.MNET\.WIDHT_MULT; did you mean MODEL\.MNET\.WIDTH_MULT"):
        load_cfg(path)
    with pytest.raises(ValueError, match=r"unknown config key SEDE; did you mean SEED"):
        load_cfg("", ["SEDE", "1"])


def test_a_value_of_another_type_is_refused(yaml_file):
    with pytest.raises(ValueError, match=r"Type mismatch.*MODEL\.MNET\.WIDTH_MULT"):
        load_cfg(yaml_file("MODEL:\n  MNET:\n    WIDTH_MULT: wide\n"))
    with pytest.raises(ValueError, match=r"MODEL\.MNET\.WIDTH_MULT wide: Type mismatch"):
        load_cfg("", ["MODEL.MNET.WIDTH_MULT", "wide"])


@pytest.mark.parametrize("text", ["MODEL: [", "just a word", "- a\n- b\n", "MODEL: 3\n", "", "# nothing\n"])
def test_broken_yaml_is_one_line_with_the_file(yaml_file, text):
    with pytest.raises(ValueError, match=r"config\.yaml") as raised:
        load_cfg(yaml_file(text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["folder:x", '["folder:x"]', "('folder:x',)"])
def test_a_name_where_a_list_of_names_is_expected(yaml_file, text):
    path = yaml_file(f"DATASETS:\n  TRAIN: {text}\nMODEL:\n  CLSNET:\n    IN_FEATURES: mob4\n")
    for cfg in (load_cfg(path), load_cfg("", ["DATASETS.TRAIN", text, "MODEL.CLSNET.IN_FEATURES", "mob4"])):
        assert (cfg.DATASETS.TRAIN, cfg.MODEL.CLSNET.IN_FEATURES) == (("folder:x",), ["mob4"])


def test_an_empty_name_is_an_empty_list():
    assert load_cfg("", ["DATASETS.TEST", ""]).DATASETS.TEST == ()


def test_a_config_of_the_first_version_of_detectron2_is_converted(yaml_file):
    assert load_cfg(yaml_file("VERSION: 1\nMODEL:\n  WEIGHT: a.pth\n")).MODEL.WEIGHTS == "a.pth"


def test_a_folder_is_not_a_config_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_cfg(str(tmp_path))


@pytest.mark.parametrize(
    ("opts", "lonely"),
    [(["SEED"], "SEED"), (["SEED", "1", "OUTPUT_DIR"], "OUTPUT_DIR"), (["SEED", "1", "2", "OUTPUT_DIR", "x"], "2")],
)
def test_an_odd_number_of_overrides_is_refused(opts, lonely):
    with pytest.raises(ValueError, match=f"pairs, KEY VALUE, but there are {len(opts)}; look at {lonely}$"):
        load_cfg("", opts)


def test_a_flag_behind_the_overrides_is_named():
    with pytest.raises(ValueError, match="--resume comes after OUTPUT_DIR; write flags before"):
        load_cfg("", ["OUTPUT_DIR", "x", "--resume"])


@pytest.mark.parametrize("inherited", [False, True])
def test_python_tags_do_not_run_code(yaml_file, tmp_path, inherited):
    mark = tmp_path / "ran"
    path = yaml_file(
        f'OUTPUT_DIR: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ["{mark}"]]\n'
    )
    if inherited:
        path = yaml_file("_BASE_: config.yaml\n", "child.yaml")
    with pytest.raises(ValueError, match="YAML tags are not allowed"):
        load_cfg(path)
    assert not mark.exists()


def test_linear_is_the_last_stage_with_one_log_line(caplog):
    with caplog.at_level(logging.INFO):
        assert feature_names(["mob3", "linear"], "MODEL.MNET.OUT_FEATURES") == ["mob3", "mob5"]
    assert len(caplog.records) == 1 and "MODEL.MNET.OUT_FEATURES" in caplog.text


def test_features_are_not_repeated_and_nothing_is_logged_without_linear(caplog):
    assert feature_names(["mob5", "linear"], "KEY") == ["mob5"]
    caplog.clear()
    assert feature_names(["mob4", "mob5"], "KEY") == ["mob4", "mob5"]
    assert not caplog.records
