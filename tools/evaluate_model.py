#!/usr/bin/env python
"""`imgcls eval` as a script of the checkout."""

import sys

from imgcls.cli.evaluate_model import main

if __name__ == "__main__":
    sys.exit(main())
