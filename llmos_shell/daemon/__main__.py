"""`python -m llmos_shell.daemon`: nothing is collected while modules load, and nothing is torn down at the end."""

import gc
import os
import sys

gc.disable()  # what modules hold is no garbage: looking for some takes a tenth of the time to start

from llmos_shell.daemon.main import main  # noqa: E402

if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    status = main()
    sys.stderr.flush()
    os._exit(status)  # `main` has closed all there is: taking the modules apart would only keep the user waiting
