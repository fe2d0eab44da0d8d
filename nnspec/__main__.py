"""`python -m nnspec`."""

import sys

from nnspec.cli import main

if __name__ == "__main__":
    sys.exit(main())
