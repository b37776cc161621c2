"""`python -m llmos_shell` is `llmos`."""

import sys

from llmos_shell.main import main

if __name__ == "__main__":
    sys.exit(main())
