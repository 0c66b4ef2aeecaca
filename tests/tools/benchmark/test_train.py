"""The race of trainers, a few iterations of each."""

import logging

from benchmark.configs import classifier_cfg
from benchmark.train import TimedLoader, race_trainers

from imgcls.data import build_train_loader


def test_both_trainers_beside_a_bare_loop(images):
    before = [logging.getLogger("detectron2").handlers[:], logging.getLogger("imgcls").level]
    table = race_trainers(images, rounds=1, batch=4, warm_up=1, measured=2, size=32)
    assert list(table.values) == ["bare loop", "imgcls, train_net_builtin.py", "imgcls, train_net.py"]
    assert table.references == ["bare loop"]
    assert all(values[0] > 0 for values in table.values.values())
    assert [logging.getLogger("detectron2").handlers, logging.getLogger("imgcls").level] == before


def test_a_timed_loader_gives_the_batches_and_notes_each_request(images):
    cfg = classifier_cfg(
        0.25, DATASETS__TRAIN=(f"folder:{images}",), SOLVER__IMS_PER_BATCH=4, DATALOADER__NUM_WORKERS=0
    )
    loader = TimedLoader(build_train_loader(cfg))
    plain = iter(build_train_loader(cfg))
    batches = iter(loader)
    for asked in (1, 2, 3):
        assert next(batches)["file_name"] == next(plain)["file_name"]
        assert len(loader.asked) == asked
    assert loader.asked == sorted(loader.asked)
    assert loader.num_images == 16 and loader.batch_size == 4
