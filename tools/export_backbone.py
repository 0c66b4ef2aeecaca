#!/usr/bin/env python
"""`imgcls export-backbone` as a script of the checkout."""

import sys

from imgcls.cli.export_backbone import main

if __name__ == "__main__":
    sys.exit(main())
