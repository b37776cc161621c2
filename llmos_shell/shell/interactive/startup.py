"""What both interactive shells do: the startup file, and what a prompt looks like, by the shell's variables.

`PS1 PS2 RPS1 PROMPT_COMMAND` as in other shells, `LLMOS_THEME`, `LLMOS_TOOLBAR` and `NO_COLOR`; see `prompt` and
`themes` for what they may hold.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmos_shell import paths
from llmos_shell.abi.errors import LlmosError
from llmos_shell.shell.interactive import prompt, themes
from llmos_shell.shell.interactive.prompt import Facts

if TYPE_CHECKING:
    from llmos_shell.shell.interactive.history import History
    from llmos_shell.shell.interactive.live import Live
    from llmos_shell.shell.interpreter.shell import Shell


@dataclass(frozen=True)
class Look:
    """How the next prompt looks."""

    prompt: str
    continuation: str
    right: str = ""
    failed: bool = False
    toolbar: bool = True
    colours: bool = True
    vi: bool = False
    theme: dict[str, str] = field(default_factory=lambda: themes.THEMES[themes.DEFAULT])


class Prompter:
    """Makes the prompts of one shell."""

    def __init__(self, shell: Shell, history: History, live: Live | None = None) -> None:
        self._shell = shell
        self._history = history
        self._live = live
        self._theme = themes.DEFAULT, themes.THEMES[themes.DEFAULT]
        for name, value in (("PS1", prompt.DEFAULT_PS1), ("PS2", prompt.DEFAULT_PS2)):
            shell.variables.unset(name)  # what another shell exports is in another language
            shell.set(name, value)

    def run_startup_file(self) -> None:
        """Executes `rc.llmsh` of the config folder, if there is one. What is wrong in it is said, and stops nothing."""
        path = os.path.join(paths.config_dir(), "rc.llmsh")
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            print(f"llmos: {path}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
            return
        self._shell.run_text(text, path)
        self._shell.last_status = 0

    def run_prompt_command(self) -> None:
        """Runs PROMPT_COMMAND. Keeps `$?`."""
        command, status = self._shell.get("PROMPT_COMMAND"), self._shell.last_status
        if command:
            self._shell.run_text(command, "PROMPT_COMMAND")
            self._shell.last_status = status

    def look(self) -> Look:
        """The next prompt, with the substitutions of PS1 run. Keeps `$?`."""
        shell, status = self._shell, self._shell.last_status
        facts = self.facts()
        first = self._text("PS1", "$ ", facts)
        continuation = self._text("PS2", prompt.DEFAULT_PS2, facts)
        right = self._text("RPS1", "", facts)
        shell.last_status = status
        return Look(
            first,
            continuation,
            right,
            failed=bool(status),
            toolbar=bool(self.toolbar_template()),
            colours=not shell.get("NO_COLOR"),
            vi=shell.options.vi,
            theme=self._find_theme(),
        )

    def toolbar_template(self) -> str:
        """What the toolbar shows; nothing when it is `off`."""
        value = self._shell.get("LLMOS_TOOLBAR")
        return prompt.DEFAULT_TOOLBAR if value is None or value == "on" else "" if value == "off" else value

    def toolbar(self) -> str:
        """The toolbar's text now. It is drawn often, so nothing in it is expanded."""
        return prompt.render(self.toolbar_template(), self.facts())

    def facts(self) -> Facts:
        """What prompts can show, as of now."""
        shell, live = self._shell, self._live
        status = live.status if live is not None else None
        return Facts(
            folder=_present_folder(shell),
            home=os.path.expanduser("~"),
            user=_user(),
            host=os.uname().nodename,
            terminal=_terminal(),
            status=shell.last_status,
            jobs=len(shell.jobs()),
            number=len(self._history.entries) + 1,
            root=os.geteuid() == 0,
            model=live.default_model if live is not None else "",
            processes=status.running + status.runnable + status.sleeping + status.stopped if status else 0,
            tokens_per_second=status.tokens_per_second if status else 0.0,
            live=live.text if live is not None else "",
        )

    def _text(self, name: str, default: str, facts: Facts) -> str:
        template = self._shell.get(name)
        if template is None:
            return default
        try:
            return prompt.render(template, facts, self._shell.expand_text)
        except KeyboardInterrupt:
            return default

    def _find_theme(self) -> dict[str, str]:
        name = self._shell.get("LLMOS_THEME") or themes.DEFAULT
        if name != self._theme[0]:
            try:
                self._theme = name, themes.find_theme(name)
            except LlmosError as error:
                print(f"llmos: LLMOS_THEME: {error}", file=sys.stderr)
                self._theme = name, themes.THEMES[themes.DEFAULT]
        return self._theme[1]


def _present_folder(shell: Shell) -> str:
    """The working folder, as the shell calls it; `?` when it is gone."""
    try:
        here = os.getcwd()
    except OSError:
        return "?"
    known = shell.get("PWD") or ""
    try:
        return known if os.path.samefile(known, here) else here
    except OSError:
        return here


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _terminal() -> str:
    try:
        return os.ttyname(0)
    except OSError:
        return ""
