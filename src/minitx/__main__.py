"""`python -m minitx`: the same as `minitx`."""

import sys

from minitx.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
