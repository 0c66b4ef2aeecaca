"""Every config key of imgcls with its default."""

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg


def get_cfg() -> CfgNode:
    """detectron2's default config with the keys of imgcls added."""
    cfg = get_detectron2_cfg()
    add_imgcls_config(cfg)
    return cfg


def add_imgcls_config(cfg: CfgNode) -> None:
    """Adds our keys to ``cfg`` in place; no key of detectron2 is changed. Composes with other adders."""
    _add_mnet(cfg)
    _add_timm(cfg)
    _add_clsnet(cfg)
    _add_input(cfg)
    _add_solver(cfg)
    # What an image that cannot be decoded does: "error" stops and names it, "skip" takes the next sample.
    cfg.DATALOADER.BAD_IMAGES = "error"
    # Which top-k accuracies a softmax head is scored by.
    cfg.TEST.TOPK = [1, 5]
    # A sigmoid head says that a class is there where its probability is above this.
    cfg.TEST.THRESHOLD = 0.5
    # Larger values of this metric are better: the best checkpoint is model_best.pth. As metrics.json names it
    # ("accuracy/top1", "ema/multilabel/mAP", "bbox/AP", ...); "" takes the first one that the evaluation gives.
    cfg.TEST.BEST_METRIC = ""
    # Training stops after this many evaluations in a row without a better one; 0 never stops it.
    cfg.TEST.PATIENCE = 0


def _add_mnet(cfg: CfgNode) -> None:
    cfg.MODEL.MNET = CfgNode()
    # Features to return, of "stem", "mob2", "mob3", "mob4", "mob5". Later stages are not built.
    cfg.MODEL.MNET.OUT_FEATURES = ["mob5"]
    # Multiplies all channels; they are rounded to multiples of 8.
    cfg.MODEL.MNET.WIDTH_MULT = 1.0
    # Multiplies the blocks of each row (not the resolution, and not the channels per depthwise filter,
    # which public code calls "depth multiplier" too): a row of n has ceil(n * DEPTH_MULT), at least 1.
    cfg.MODEL.MNET.DEPTH_MULT = 1.0
    # Blocks per row; [] is the paper's table (V1: [1, 2, 2, 6, 2], its shallow net is [1, 2, 2, 1, 2]).
    cfg.MODEL.MNET.BLOCKS = []
    # 2, or 1 for small images (28 to 64 pixels): all strides are then half as large.
    cfg.MODEL.MNET.STEM_STRIDE = 2
    # "relu6" (all public MobileNetV1 weights), "relu" (the paper), "leaky_relu" (slope 0.1, the 2020 project).
    cfg.MODEL.MNET.ACTIVATION = "relu6"
    # As detectron2's get_norm: "BN", "SyncBN", "FrozenBN", "GN", ...
    cfg.MODEL.MNET.NORM = "BN"
    cfg.MODEL.MNET.BN_EPS = 1e-5
    # PyTorch's meaning: the share of the new batch in the running statistics.
    cfg.MODEL.MNET.BN_MOMENTUM = 0.1


def _add_timm(cfg: CfgNode) -> None:
    cfg.MODEL.TIMM = CfgNode()
    # For build_timm_backbone: any name of timm.list_models(), with or without the .tag of its weights.
    cfg.MODEL.TIMM.NAME = ""
    # Features to return, by timm's names for them; [] is all. What comes after the last of them is not built.
    cfg.MODEL.TIMM.OUT_FEATURES = []
    # True lets timm download weights; INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD must be theirs.
    cfg.MODEL.TIMM.PRETRAINED = False


def _add_clsnet(cfg: CfgNode) -> None:
    cfg.MODEL.CLSNET = CfgNode()
    # Accepted for configs of the 2020 project and ignored: META_ARCHITECTURE decides.
    cfg.MODEL.CLSNET.ENABLE = True
    # Checked against the training set before the first iteration; -1 takes it from there.
    cfg.MODEL.CLSNET.NUM_CLASSES = 1000
    # The one backbone feature that the head reads.
    cfg.MODEL.CLSNET.IN_FEATURES = ["mob5"]
    # Side of the square input in pixels.
    cfg.MODEL.CLSNET.INPUT_SIZE = 224
    # "softmax": one class an image, cross-entropy. "sigmoid": any number of classes, binary cross-entropy.
    cfg.MODEL.CLSNET.HEAD = "softmax"
    # Channels of a 1x1 convolution before the pooling (MobileNetV2: 1280); 0 builds none.
    cfg.MODEL.CLSNET.HEAD_CONV_DIM = 0
    cfg.MODEL.CLSNET.DROPOUT = 0.0
    # Softmax only: the share of the target that is spread over all classes.
    cfg.MODEL.CLSNET.LABEL_SMOOTHING = 0.0
    # Sigmoid only: weight of the positives per class as a list, "auto" (negatives/positives of the training
    # set), or None for 1.
    cfg.MODEL.CLSNET.POS_WEIGHT = None
    # Channels-last memory format: the same numbers to rounding, faster convolutions.
    cfg.MODEL.CHANNELS_LAST = True
    # torch.compile for a classifier's backbone and head: minutes to start, then faster. Needs a C++ compiler on a CPU.
    cfg.MODEL.COMPILE = False


def _add_input(cfg: CfgNode) -> None:
    # Evaluation resizes the short side to INPUT_SIZE / CROP_PCT and takes the centre.
    cfg.INPUT.CROP_PCT = 0.875
    # Area (share of the image) and aspect ratio of the random training crop. INPUT.RANDOM_FLIP is detectron2's.
    cfg.INPUT.CROP_SCALE = [0.08, 1.0]
    cfg.INPUT.CROP_RATIO = [3 / 4, 4 / 3]
    # "none", "trivialaugment" or "randaugment" (torchvision's defaults), on the cropped image.
    cfg.INPUT.AUGMENTATION = "none"
    # Probability of erasing a random rectangle of the cropped image.
    cfg.INPUT.RANDOM_ERASING = 0.0


def _add_solver(cfg: CfgNode) -> None:
    # Lengths in epochs of the training set, for classifiers. Where they are given they replace the same in iterations:
    # EPOCHS (0: not given) MAX_ITER, WARMUP_EPOCHS (-1: not given) WARMUP_ITERS, STEP_EPOCHS ((): not given) STEPS.
    cfg.SOLVER.EPOCHS = 0
    cfg.SOLVER.WARMUP_EPOCHS = -1
    cfg.SOLVER.STEP_EPOCHS = ()
    # IMS_PER_BATCH goes through the network in this many parts, one after the other, before the optimizer steps.
    cfg.SOLVER.ACCUM_STEPS = 1
    # Share that stays of the averaged weights at every step (0.9999); 0 keeps no average.
    cfg.SOLVER.EMA_DECAY = 0.0
    # How many of the numbered checkpoints are kept, besides model_best and model_final; 0 keeps all.
    cfg.SOLVER.KEEP_CHECKPOINTS = 3
    # Iterations from one line of the log and of metrics.json to the next.
    cfg.SOLVER.LOG_PERIOD = 20
    # With AMP.ENABLED: "float16" (with a gradient scaler) or "bfloat16".
    cfg.SOLVER.AMP.PRECISION = "float16"
