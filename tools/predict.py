#!/usr/bin/env python
"""`imgcls predict` as a script of the checkout."""

import sys

from imgcls.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
