#!/usr/bin/env python
"""`imgcls convert` as a script of the checkout."""

import sys

from imgcls.cli.convert_weights import main

if __name__ == "__main__":
    sys.exit(main())
