#!/usr/bin/env python
"""`imgcls export` as a script of the checkout."""

import sys

from imgcls.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
