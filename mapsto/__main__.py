"""`python -m mapsto`."""

import sys

from mapsto.cli import main

if __name__ == "__main__":
    sys.exit(main())
