"""Writing in the user's own editor: Ctrl-X Ctrl-E at any prompt.

Owns the way out to `$VISUAL` or `$EDITOR` and back; what the text means is the prompt's business.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
import threading
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings

FALLBACKS = ("editor", "nano", "vim", "vi")
"""Tried in this order where neither variable is set."""

_DEFAULTS = (signal.SIGQUIT, signal.SIGTERM, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE)
"""Signals that a shell with job control ignores, and an editor should not."""


def bind_editor(keys: KeyBindings, suffix: str) -> None:
    """Binds Ctrl-X Ctrl-E, and `v` of vi's keys: the text being typed is edited in a file, and comes back.

    The file's name ends in `suffix`. The text stays at the prompt, to be looked at; what goes wrong is said above it,
    and leaves it as it was.
    """
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import vi_navigation_mode
    from prompt_toolkit.key_binding import KeyPressEvent

    @keys.add("c-x", "c-e")
    @keys.add("v", filter=vi_navigation_mode)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer

        def edit() -> None:
            try:
                text = edit_text(buffer.text, suffix)
            except LlmosError as error:
                print(f"llmos: editor: {error}", flush=True)
            else:
                buffer.document = Document(text)

        async def outside() -> None:
            await run_in_terminal(edit)

        event.app.create_background_task(outside())


def edit_text(text: str, suffix: str) -> str:
    """The text as the user left it in the editor, without the final line end that editors add.

    Raises `LlmosError` when there is no editor, when it fails (then the text is not to be used), or for a file that is
    not UTF-8.
    """
    argv = editor_argv()
    with tempfile.TemporaryDirectory(prefix="llmos-edit-") as folder:
        path = os.path.join(folder, f"text{suffix}")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text + "\n" if text and not text.endswith("\n") else text)
        try:
            status = _run([*argv, path])
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise LlmosError(Code.ENOENT, f"{argv[0]}: {reason}", hint="set EDITOR to one that is there") from None
        if status:
            raise LlmosError(Code.EIO, f"{argv[0]} ended with status {status}: the text is as it was")
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise LlmosError(Code.EIO, f"what {argv[0]} wrote cannot be read: {error}") from None


def editor_argv() -> list[str]:
    """The words of the editor's command line. Raises ENOENT when none is set and none is found."""
    for variable in ("VISUAL", "EDITOR"):
        value = os.environ.get(variable, "").strip()
        if value:
            try:
                return shlex.split(value)
            except ValueError as error:
                raise LlmosError(Code.EINVAL, f"${variable}: {str(error).lower()}") from None
    for name in FALLBACKS:
        if shutil.which(name):
            return [name]
    raise LlmosError(Code.ENOENT, "no editor is set", hint="for example `export EDITOR=nano`")


def _run(argv: list[str]) -> int:
    """Runs it on the terminal to its end; Ctrl-C is the editor's, and Ctrl-Z has nowhere to lead to."""
    ignored = [number for number in _DEFAULTS if signal.getsignal(number) is signal.SIG_IGN]
    here = threading.current_thread() is threading.main_thread()
    pid = os.posix_spawnp(argv[0], argv, os.environ, setsigdef=[*ignored, signal.SIGINT])
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            os.kill(pid, signal.SIGCONT)
    finally:
        if here:
            signal.signal(signal.SIGINT, interrupt)
