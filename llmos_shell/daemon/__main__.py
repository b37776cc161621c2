"""`python -m llmos_shell.daemon`."""

import sys

from llmos_shell.daemon.main import main

if __name__ == "__main__":
    sys.exit(main())
