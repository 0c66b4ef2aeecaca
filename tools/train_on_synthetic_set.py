#!/usr/bin/env python
"""Runs train_net_builtin.py, with the same arguments, after registering the synthetic detection set."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import transfer  # noqa: F401  (registers synthetic_train and synthetic_test)

from imgcls.cli.train import main

if __name__ == "__main__":
    main()
