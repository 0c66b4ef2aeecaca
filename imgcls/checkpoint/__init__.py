"""Checkpoints that say what they need to be used again, and that are refused where they do not fit."""

from imgcls.checkpoint.backbone import extract_backbone
from imgcls.checkpoint.checkpointer import RunCheckpointer
from imgcls.checkpoint.compat import build_contract, changed_keys, check_contract
from imgcls.checkpoint.files import read_checkpoint, write_checkpoint
from imgcls.checkpoint.foreign.conversion import convert
from imgcls.checkpoint.handoff import (
    HandoffError,
    LoadReport,
    build_checked,
    build_expected,
    compare,
    export_backbone,
    find_backbone,
    load_backbone,
    verify_backbone,
)
from imgcls.checkpoint.model_checkpointers import ClsCheckpointer, DetectorCheckpointer, build_info
from imgcls.checkpoint.run import RunLock, find_newest, lock_run_folder, read_tag, saved_seed

__all__ = [
    "ClsCheckpointer",
    "DetectorCheckpointer",
    "HandoffError",
    "LoadReport",
    "RunCheckpointer",
    "RunLock",
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
    "lock_run_folder",
    "read_checkpoint",
    "read_tag",
    "saved_seed",
    "verify_backbone",
    "write_checkpoint",
]
