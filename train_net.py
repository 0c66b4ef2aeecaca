#!/usr/bin/env python
"""`imgcls train-plain` as a script of the checkout."""

import sys

from imgcls.cli.train_plain import main

if __name__ == "__main__":
    sys.exit(main())
