"""Exported classifiers: files for other runtimes, written only after a proof, and read again as classifiers."""

from imgcls.inference.export.exported import ExportedClassifier, load_exported
from imgcls.inference.export.formats import FORMATS
from imgcls.inference.export.int8 import Int8Options, Int8Proof
from imgcls.inference.export.proof import export_classifier

__all__ = ["FORMATS", "ExportedClassifier", "Int8Options", "Int8Proof", "export_classifier", "load_exported"]
