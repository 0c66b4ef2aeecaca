#!/usr/bin/env python
"""`imgcls train` as a script of the checkout."""

import sys

from imgcls.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
