#!/usr/bin/env python
"""`imgcls complexity` as a script of the checkout; without arguments it also writes configs/complexity.json.

A test compares every config with that file.
"""

import sys

from imgcls.cli.model_complexity import main
from imgcls.model_zoo import config_folder

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["--save", str(config_folder() / "complexity.json")]))
