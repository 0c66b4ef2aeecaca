"""Trains a detector of detectron2 on a set of your own, from a backbone that imgcls has handed over.

python train_detector.py [KEY VALUE ...]
"""

import sys

from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.evaluation import COCOEvaluator

from imgcls import model_zoo
from imgcls.config import add_imgcls_config


class Trainer(DefaultTrainer):
    """detectron2's own trainer; nothing in it knows of imgcls."""

    @classmethod
    def build_evaluator(cls, cfg, name):
        """AP of the boxes."""
        return COCOEvaluator(name, tasks=("bbox",), output_dir=cfg.OUTPUT_DIR, use_fast_impl=False)


if __name__ == "__main__":
    for split in ("train", "val"):
        register_coco_instances(f"shapes_{split}", {}, f"boxes/{split}.json", f"boxes/{split}")
    cfg = get_cfg()
    add_imgcls_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("transfer/retinanet_mnetv1_025.yaml"))
    cfg.merge_from_list(["DATASETS.TRAIN", "('shapes_train',)", "DATASETS.TEST", "('shapes_val',)", *sys.argv[1:]])
    default_setup(cfg, args=None)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
