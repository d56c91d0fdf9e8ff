"""The command line: ``python -m sklgap``."""

import sys

from sklgap.cli import main

if __name__ == "__main__":
    sys.exit(main())
