"""The options of `set`."""

from __future__ import annotations

LETTERS = {
    "a": "allexport",
    "C": "noclobber",
    "e": "errexit",
    "f": "noglob",
    "n": "noexec",
    "u": "nounset",
    "v": "verbose",
    "x": "xtrace",
    "m": "monitor",
    "b": "notify",
}
NAMES = (*sorted(LETTERS.values()), "pipefail", "emacs", "vi")


class Options:
    """On or off, by name."""

    __slots__ = (
        "allexport",
        "errexit",
        "monitor",
        "noclobber",
        "noexec",
        "noglob",
        "notify",
        "nounset",
        "pipefail",
        "verbose",
        "vi",
        "xtrace",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, False)

    allexport: bool
    errexit: bool
    monitor: bool
    noclobber: bool
    noexec: bool
    noglob: bool
    notify: bool
    nounset: bool
    pipefail: bool
    verbose: bool
    vi: bool
    xtrace: bool

    @property
    def emacs(self) -> bool:
        """Whether the line editor has Emacs's keys: those or vi's it always has."""
        return not self.vi

    @emacs.setter
    def emacs(self, on: bool) -> None:
        self.vi = not on

    def copy(self) -> Options:
        """For a subshell."""
        other = Options.__new__(Options)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def letters(self) -> str:
        """`$-`."""
        return "".join(sorted(letter for letter, name in LETTERS.items() if getattr(self, name)))
