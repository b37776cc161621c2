"""Runs the cases of one spec file, each in a fork of this process, so that imports are paid for once.

`python driver.py CASES RESULTS` reads JSON [[script, folder], …] and writes JSON [[status, stdout, stderr], …].
"""

import json
import os
import signal
import sys

from llmos_shell.shell import commands  # noqa: F401
from llmos_shell.shell.interpreter import builtins_info, builtins_test, builtins_text, pipelines, shell  # noqa: F401

LIMIT_SECONDS = 30


def run(script: str, folder: str) -> tuple[int, str, str]:
    out, err = os.path.join(folder, ".out"), os.path.join(folder, ".err")
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT_SECONDS)
        os.chdir(folder)
        os.environ.update(HOME=folder, PWD=folder, LLMOS_HOME=os.path.join(folder, ".llmos"))
        for number, path, flags in ((0, os.devnull, 0), (1, out, 0o1101), (2, err, 0o1101)):
            fd = os.open(path, flags, 0o600)
            os.dup2(fd, number)
            os.close(fd)
        sh = shell.Shell(name="sh")
        sh.run_text(script, "-c")
        os._exit(sh.close())
    _, status = os.waitpid(pid, 0)
    with open(out, errors="surrogateescape") as o, open(err, errors="surrogateescape") as e:
        return os.waitstatus_to_exitcode(status), o.read(), e.read()


if __name__ == "__main__":
    with open(sys.argv[1]) as cases:
        results = [run(script, folder) for script, folder in json.load(cases)]
    with open(sys.argv[2], "w") as file:
        json.dump(results, file)
