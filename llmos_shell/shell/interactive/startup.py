"""What both interactive shells do: the startup file and the prompt's text."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from llmos_shell import paths

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


def run_startup_file(shell: Shell) -> None:
    """Executes `rc.llmsh` of the config folder, if there is one."""
    path = os.path.join(paths.config_dir(), "rc.llmsh")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        print(f"llmos: {path}: {error}", file=sys.stderr)
        return
    shell.run_text(text, path)


def prompt_text(folder: str, home: str) -> str:
    """E.g. `llmos:~/work$ `."""
    home = home.rstrip("/")
    if home and (folder == home or folder.startswith(home + "/")):
        folder = "~" + folder[len(home) :]
    return f"llmos:{folder}$ "


def present_folder() -> str:
    """The working folder, `?` when it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "?"
