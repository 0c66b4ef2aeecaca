#!/usr/bin/env python
"""`imgcls pack` as a script of the checkout."""

import sys

from imgcls.cli.pack_dataset import main

if __name__ == "__main__":
    sys.exit(main())
