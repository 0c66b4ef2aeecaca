"""Exported classifiers: files for other runtimes, written only after a proof, and read again as classifiers."""

from imgcls.inference.export.exported import ExportedClassifier, load_exported
from imgcls.inference.export.formats import FORMATS
from imgcls.inference.export.int8 import QuantizationOptions, QuantizationProof
from imgcls.inference.export.proof import export_classifier

__all__ = [
    "FORMATS",
    "ExportedClassifier",
    "QuantizationOptions",
    "QuantizationProof",
    "export_classifier",
    "load_exported",
]
