#!/usr/bin/env python
"""`imgcls report` as a script of the checkout."""

import sys

from imgcls.cli.report_run import main

if __name__ == "__main__":
    sys.exit(main())
