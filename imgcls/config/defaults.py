"""Every config key of imgcls with its default. The comments above the keys are also their documentation."""

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg


def get_cfg() -> CfgNode:
    """Returns detectron2's default config with the keys of imgcls added."""
    cfg = get_detectron2_cfg()
    add_imgcls_config(cfg)
    return cfg


def add_imgcls_config(cfg: CfgNode) -> None:
    """Adds the keys of imgcls to ``cfg`` in place, without a change to existing keys."""
    _add_mnet(cfg)
    _add_timm(cfg)
    _add_clsnet(cfg)
    _add_data(cfg)
    _add_solver(cfg)
    _add_test(cfg)
    _add_output(cfg)


def _add_mnet(cfg: CfgNode) -> None:
    cfg.MODEL.MNET = CfgNode()
    # Features that the backbone returns, out of "stem", "mob2", "mob3", "mob4" and "mob5". Stages after the last one
    # are not built.
    cfg.MODEL.MNET.OUT_FEATURES = ["mob5"]
    # Factor on the number of channels of every layer. The result is rounded to a multiple of 8.
    cfg.MODEL.MNET.WIDTH_MULT = 1.0
    # Factor on the number of blocks in each row of the paper's table: n blocks become ceil(n * DEPTH_MULT), at least 1.
    # It is not the "depth multiplier" of other code, which scales the width or the channels of each depthwise filter.
    cfg.MODEL.MNET.DEPTH_MULT = 1.0
    # Number of blocks in each row of the paper's table. [] takes the paper's numbers, [1, 2, 2, 6, 2] for V1.
    cfg.MODEL.MNET.BLOCKS = []
    # Stride of the first convolution: 2, or 1 for images of 28 to 64 pixels. With 1, all strides are half as large.
    cfg.MODEL.MNET.STEM_STRIDE = 2
    # Activation: "relu6" (all public MobileNetV1 weights), "relu" (the paper) or "leaky_relu" (slope 0.1, the 2020
    # project).
    cfg.MODEL.MNET.ACTIVATION = "relu6"
    # Normalisation, by the names of detectron2's get_norm: "BN", "SyncBN", "FrozenBN", "GN" and others.
    cfg.MODEL.MNET.NORM = "BN"
    # Epsilon of the normalisation layers. TensorFlow and Keras use 1e-3.
    cfg.MODEL.MNET.BN_EPS = 1e-5
    # Momentum of the running statistics as PyTorch defines it, which is the weight of the new batch.
    cfg.MODEL.MNET.BN_MOMENTUM = 0.1


def _add_timm(cfg: CfgNode) -> None:
    cfg.MODEL.TIMM = CfgNode()
    # Network of build_timm_backbone: any name from timm.list_models(), with or without the tag of its weights.
    cfg.MODEL.TIMM.NAME = ""
    # Features that the backbone returns, by timm's names; [] returns all. Layers after the last one are not built.
    cfg.MODEL.TIMM.OUT_FEATURES = []
    # Lets timm download its weights. INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD must match them.
    cfg.MODEL.TIMM.PRETRAINED = False
    # A local file with timm's weights of that network (.pth or .safetensors), from which training starts instead. It is
    # not read if MODEL.WEIGHTS is set. The same three keys must match the network's in timm.
    cfg.MODEL.TIMM.CHECKPOINT = ""


def _add_clsnet(cfg: CfgNode) -> None:
    cfg.MODEL.CLSNET = CfgNode()
    # Ignored; accepted for configs of the 2020 project. MODEL.META_ARCHITECTURE selects the classifier.
    cfg.MODEL.CLSNET.ENABLE = True
    # Number of classes, which must be that of the training set. -1 takes it from the training set.
    cfg.MODEL.CLSNET.NUM_CLASSES = 1000
    # The backbone feature that the head reads, as a list of one name.
    cfg.MODEL.CLSNET.IN_FEATURES = ["mob5"]
    # Side of the square input in pixels.
    cfg.MODEL.CLSNET.INPUT_SIZE = 224
    # "softmax" for one class per image (cross-entropy), or "sigmoid" for any number of classes per image (binary
    # cross-entropy).
    cfg.MODEL.CLSNET.HEAD = "softmax"
    # Channels of a 1x1 convolution before the pooling. MobileNetV2 has 1280; 0 builds no convolution.
    cfg.MODEL.CLSNET.HEAD_CONV_DIM = 0
    # Dropout probability before the linear layer.
    cfg.MODEL.CLSNET.DROPOUT = 0.0
    # Label smoothing of the softmax loss: the share of the target probability that is spread over all classes.
    cfg.MODEL.CLSNET.LABEL_SMOOTHING = 0.0
    # Weight of the positives in the sigmoid loss: a list with one value per class, "auto" for negatives / positives in
    # the training set, or None for 1.
    cfg.MODEL.CLSNET.POS_WEIGHT = None
    # What to do if MODEL.WEIGHTS was trained with other INPUT.FORMAT, MODEL.PIXEL_MEAN or MODEL.PIXEL_STD than those of
    # the config: "check" refuses it, and "adopt" uses those of the weights, which must have been saved by imgcls.
    cfg.MODEL.WEIGHTS_PREPROCESSING = "check"
    # Uses the channels-last memory format, which makes convolutions faster. Results are equal up to rounding.
    cfg.MODEL.CHANNELS_LAST = True
    # Compiles backbone and head of a classifier with torch.compile, which takes minutes at the start. On a CPU this
    # needs a C++ compiler.
    cfg.MODEL.COMPILE = False


def _add_data(cfg: CfgNode) -> None:
    # Share of each training set, by class, that is held out for evaluation where DATASETS.TEST is empty, for example
    # 0.2. Which images depends on SEED only. 0 holds out nothing.
    cfg.DATASETS.VAL_FRACTION = 0.0
    # Evaluation resizes the short side to MODEL.CLSNET.INPUT_SIZE / CROP_PCT and crops the centre.
    cfg.INPUT.CROP_PCT = 0.875
    # Range of the area of the random training crop, as a fraction of the image.
    cfg.INPUT.CROP_SCALE = [0.08, 1.0]
    # Range of the aspect ratio (width / height) of the random training crop.
    cfg.INPUT.CROP_RATIO = [3 / 4, 4 / 3]
    # Augmentation of the cropped training image: "none", "trivialaugment" or "randaugment", with torchvision's
    # defaults.
    cfg.INPUT.AUGMENTATION = "none"
    # Probability that a random rectangle of the cropped training image is erased.
    cfg.INPUT.RANDOM_ERASING = 0.0
    # Reaction to an image that cannot be decoded: "error" stops and names it. With "skip", training takes the next
    # sample, and evaluation leaves the image out.
    cfg.DATALOADER.BAD_IMAGES = "error"


def _add_solver(cfg: CfgNode) -> None:
    # Length of a classifier's training in epochs, instead of SOLVER.MAX_ITER. 0 uses SOLVER.MAX_ITER.
    cfg.SOLVER.EPOCHS = 0
    # Length of the warm-up in epochs, instead of SOLVER.WARMUP_ITERS. -1 uses SOLVER.WARMUP_ITERS.
    cfg.SOLVER.WARMUP_EPOCHS = -1
    # Epochs at which the learning rate drops, instead of SOLVER.STEPS. () uses SOLVER.STEPS.
    cfg.SOLVER.STEP_EPOCHS = ()
    # Epochs between two checkpoints, instead of SOLVER.CHECKPOINT_PERIOD. 0 uses SOLVER.CHECKPOINT_PERIOD; train_net.py
    # also saves at the end of each epoch then.
    cfg.SOLVER.CHECKPOINT_EPOCHS = 0
    # Number of epochs at the start in which only the head is trained, while the backbone and its batch norms stay as
    # they are.
    cfg.SOLVER.HEAD_ONLY_EPOCHS = 0
    # Factor on the learning rate of the backbone, for fine-tuning.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Gradient accumulation: each batch of SOLVER.IMS_PER_BATCH images is split into this many parts, which go through
    # the network one after the other before the optimizer steps.
    cfg.SOLVER.ACCUM_STEPS = 1
    # Decay of the moving average of the weights, for example 0.9999. 0 keeps no average.
    cfg.SOLVER.EMA_DECAY = 0.0
    # Number of numbered checkpoints to keep, besides model_best and model_final. 0 keeps all.
    cfg.SOLVER.KEEP_CHECKPOINTS = 3
    # Iterations between two lines of the log and of metrics.json.
    cfg.SOLVER.LOG_PERIOD = 20
    # Precision with SOLVER.AMP.ENABLED: "float16", which uses a gradient scaler, or "bfloat16".
    cfg.SOLVER.AMP.PRECISION = "float16"


def _add_test(cfg: CfgNode) -> None:
    # Epochs between two evaluations, instead of TEST.EVAL_PERIOD. 0 uses TEST.EVAL_PERIOD; if that is 0 as well,
    # train_net.py evaluates at the end of each epoch.
    cfg.TEST.EVAL_EPOCHS = 0
    # Values of k for the top-k accuracies of a softmax head. Those from the number of classes on, which always give
    # 100 %, are left out unless none remains.
    cfg.TEST.TOPK = [1, 5]
    # A sigmoid head predicts a class where its probability is above this value.
    cfg.TEST.THRESHOLD = 0.5
    # Writes the probabilities of all classes as probabilities.npy (float32, one row per row of predictions.csv). With
    # 20 classes or fewer, predictions.csv has them, too. The report needs them for the curves of a sigmoid head.
    cfg.TEST.SAVE_PROBABILITIES = False
    # Metric, larger is better, that selects model_best.pth, by its name in metrics.json ("accuracy/top1",
    # "accuracy/F1_macro", "ema/multilabel/mAP", "bbox/AP"). "" takes the first metric of the evaluation.
    cfg.TEST.BEST_METRIC = ""
    # Training stops after this many evaluations in a row without a better value of the metric. 0 never stops it.
    cfg.TEST.PATIENCE = 0


def _add_output(cfg: CfgNode) -> None:
    cfg.OUTPUT = CfgNode()
    # Experiment trackers that get the config and the scalars of a training: "wandb", "mlflow". Each needs the extra of
    # its name, and takes its address and account from its own environment variables. () sends nothing anywhere.
    cfg.OUTPUT.LOGGERS = ()
