"""Checkpoints that carry their own settings and are refused by models and configs that they do not fit."""

from imgcls.checkpoint.backbone import extract_backbone
from imgcls.checkpoint.checkpointer import RunCheckpointer
from imgcls.checkpoint.compat import (
    Settings,
    Use,
    build_contract,
    build_expected,
    check_contract,
    check_settings,
    read_settings,
)
from imgcls.checkpoint.files import read_checkpoint, write_checkpoint
from imgcls.checkpoint.foreign.conversion import convert
from imgcls.checkpoint.handoff import (
    HandoffError,
    LoadReport,
    build_checked,
    compare,
    export_backbone,
    find_backbone,
    load_backbone,
    verify_backbone,
)
from imgcls.checkpoint.model_checkpointers import ClsCheckpointer, DetectorCheckpointer, build_detector_info, build_info
from imgcls.checkpoint.run import RunLock, check_resume_path, find_newest, lock_run_folder, read_tag, saved_seed

__all__ = [
    "ClsCheckpointer",
    "DetectorCheckpointer",
    "HandoffError",
    "LoadReport",
    "RunCheckpointer",
    "RunLock",
    "Settings",
    "Use",
    "build_checked",
    "build_contract",
    "build_detector_info",
    "build_expected",
    "build_info",
    "check_contract",
    "check_resume_path",
    "check_settings",
    "compare",
    "convert",
    "export_backbone",
    "extract_backbone",
    "find_backbone",
    "find_newest",
    "load_backbone",
    "lock_run_folder",
    "read_checkpoint",
    "read_settings",
    "read_tag",
    "saved_seed",
    "verify_backbone",
    "write_checkpoint",
]
