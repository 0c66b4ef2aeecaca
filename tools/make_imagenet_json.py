#!/usr/bin/env python
"""`imgcls make-imagenet-json` as a script of the checkout."""

import sys

from imgcls.cli.make_imagenet_json import main

if __name__ == "__main__":
    sys.exit(main())
