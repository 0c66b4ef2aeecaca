#!/usr/bin/env python
"""`imgcls detect-classify` as a script of the checkout."""

import sys

from imgcls.cli.detect_classify import main

if __name__ == "__main__":
    sys.exit(main())
