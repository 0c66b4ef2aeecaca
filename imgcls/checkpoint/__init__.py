"""Checkpoints that say what they need to be used again, and that are refused where they do not fit."""

from .checkpointer import ClsCheckpointer, build_info
from .contract import build_contract, check_contract

__all__ = ["ClsCheckpointer", "build_contract", "build_info", "check_contract"]
