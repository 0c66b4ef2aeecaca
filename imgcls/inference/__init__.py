"""What happens after training: prediction, and faster inference."""

from imgcls.inference.classifier import Classifier, ClassifierInfo, load_checkpoint_classifier
from imgcls.inference.fold import fold_batch_norm
from imgcls.inference.prediction import Prediction
from imgcls.inference.predictor import Predictor

__all__ = [
    "Classifier",
    "ClassifierInfo",
    "Prediction",
    "Predictor",
    "fold_batch_norm",
    "load_checkpoint_classifier",
]
