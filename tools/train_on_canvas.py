#!/usr/bin/env python
"""train_net_builtin.py with the synthetic detection set registered: the same arguments."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import transfer  # noqa: F401  (registers canvas_train and canvas_test)

from imgcls.cli.train import main

if __name__ == "__main__":
    main()
