import pytest
import torch

from imgcls.checkpoint import ClsCheckpointer, build_info
from imgcls.config import check_cfg
from imgcls.data.catalog import get_dataset
from imgcls.engine.resolve import adopt_preprocessing, hold_out, resolve_from_data
from imgcls.modeling import ClsNet


def test_a_share_of_the_training_set_is_held_out_where_no_test_set_is_given(tiny_cfg):
    whole = tiny_cfg.DATASETS.TRAIN[0]
    tiny_cfg.merge_from_list(["DATASETS.VAL_FRACTION", 0.25, "SEED", 5])
    given = tiny_cfg.DATASETS.TEST
    hold_out(tiny_cfg)
    assert ((whole,), given) == (tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST)
    tiny_cfg.DATASETS.TEST = ()
    hold_out(tiny_cfg)
    assert ((f"{whole}@0.75,5",), (f"{whole}@-0.25,5",)) == (tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST)
    before = tiny_cfg.clone()
    hold_out(tiny_cfg)  # as for a config.yaml that was written by a run
    assert tiny_cfg == before
    datasets = resolve_from_data(tiny_cfg)
    images = [record["image_id"] for dataset in (*datasets.train, *datasets.test) for record in dataset.records]
    assert sorted(images) == sorted(record["image_id"] for record in get_dataset(whole).records)
    assert len(datasets.test[0].records) == 3


def test_a_part_of_a_set_is_not_divided_again(tiny_cfg):
    tiny_cfg.merge_from_list(
        ["DATASETS.VAL_FRACTION", 0.2, "DATASETS.TEST", (), "DATASETS.TRAIN", (f"{tiny_cfg.DATASETS.TRAIN[0]}@0.5",)]
    )
    with pytest.raises(ValueError, match=r"VAL_FRACTION is 0\.2, but folder:.*@0\.5 in DATASETS\.TRAIN is a part"):
        hold_out(tiny_cfg)


@pytest.fixture
def weights(tiny_cfg, tmp_path):
    """A checkpoint that was trained on RGB images with other means."""
    cfg = tiny_cfg.clone()
    cfg.merge_from_list(
        ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], "MODEL.PIXEL_STD", [4.0, 5.0, 6.0]]
    )
    model = ClsNet(cfg)
    folder = tmp_path / "other"
    folder.mkdir()
    checkpointer = ClsCheckpointer(
        model, str(folder), info=build_info(cfg, ["a", "b", "c"]), optimizer=torch.optim.SGD(model.parameters(), lr=1)
    )
    checkpointer.save("model_0000001", iteration=1)
    return folder / "model_0000001.pth"


def preprocessing(cfg):
    return cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD


@pytest.mark.parametrize("resume", [False, True, "path", "folder"])
def test_preprocessing_is_adopted_from_the_weights_or_the_resumed_run(tiny_cfg, weights, tmp_path, resume):
    before = preprocessing(tiny_cfg)
    tiny_cfg.MODEL.WEIGHTS = "" if resume else str(weights)
    if resume is True:
        tiny_cfg.OUTPUT_DIR = str(weights.parent)
    source = {"path": str(weights), "folder": str(weights.parent)}.get(resume, resume)
    adopt_preprocessing(tiny_cfg, source)
    assert preprocessing(tiny_cfg) == before, '"check" changes nothing'
    tiny_cfg.MODEL.WEIGHTS_PREPROCESSING = "adopt"
    adopt_preprocessing(tiny_cfg, source)
    assert preprocessing(tiny_cfg) == ("RGB", [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_adopting_without_weights_changes_nothing(tiny_cfg):
    before = preprocessing(tiny_cfg)
    tiny_cfg.MODEL.WEIGHTS_PREPROCESSING = "adopt"
    adopt_preprocessing(tiny_cfg)
    adopt_preprocessing(tiny_cfg, resume=True)  # a new run, because there is no checkpoint
    assert preprocessing(tiny_cfg) == before


def test_weights_that_do_not_say_how_they_were_trained_cannot_be_adopted(tiny_cfg, tmp_path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "bare.pth")
    tiny_cfg.merge_from_list(["MODEL.WEIGHTS_PREPROCESSING", "adopt", "MODEL.WEIGHTS", str(tmp_path / "bare.pth")])
    with pytest.raises(ValueError, match=r"bare\.pth does not say how its images were prepared.*'check'"):
        adopt_preprocessing(tiny_cfg)
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "gone.pth")
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        adopt_preprocessing(tiny_cfg)


def test_timms_own_weights_are_not_adopted(tiny_cfg):
    tiny_cfg.merge_from_list(["MODEL.WEIGHTS_PREPROCESSING", "adopt", "MODEL.TIMM.PRETRAINED", True])
    with pytest.raises(ValueError, match=r"reads MODEL\.WEIGHTS and not timm's weights; allowed: 'check'"):
        check_cfg(tiny_cfg)
