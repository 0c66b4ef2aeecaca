#!/usr/bin/env python
"""`imgcls serve` as a script of the checkout."""

import sys

from imgcls.cli.serve import main

if __name__ == "__main__":
    sys.exit(main())
