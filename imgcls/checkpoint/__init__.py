"""Checkpoints that say what they need to be used again, and that are refused where they do not fit."""

from .backbone_file import extract_backbone
from .changed import changed_keys
from .checkpointer import ClsCheckpointer, build_info
from .contract import build_contract, check_contract
from .detector import DetectorCheckpointer
from .export import export_backbone, verify_backbone
from .files import read_checkpoint, write_checkpoint
from .foreign import convert
from .handoff import build_checked, build_expected, find_backbone, load_backbone
from .load_report import HandoffError, LoadReport, compare
from .run_checkpointer import RunCheckpointer
from .run_folder import find_newest, read_tag
from .seed import saved_seed

__all__ = [
    "ClsCheckpointer",
    "DetectorCheckpointer",
    "HandoffError",
    "LoadReport",
    "RunCheckpointer",
    "build_checked",
    "build_contract",
    "build_expected",
    "build_info",
    "changed_keys",
    "check_contract",
    "compare",
    "convert",
    "export_backbone",
    "extract_backbone",
    "find_backbone",
    "find_newest",
    "load_backbone",
    "read_checkpoint",
    "read_tag",
    "saved_seed",
    "verify_backbone",
    "write_checkpoint",
]
