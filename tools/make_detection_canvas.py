#!/usr/bin/env python
"""The old name of make_synthetic_detection_set.py."""

from make_synthetic_detection_set import main

if __name__ == "__main__":
    main()
