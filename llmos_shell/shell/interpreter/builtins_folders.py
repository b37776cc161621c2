"""`cd`, `pwd` and `umask`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins import usage, write
from llmos_shell.shell.interpreter.folders import present_umask

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


def cd(shell: Shell, words: list[str]) -> int:
    """Changes the folder: home without an argument, the last one with `-`; relative names are looked up in CDPATH."""
    arguments, physical = words[1:], False
    while arguments and re.fullmatch(r"-[PL]+|--", arguments[0]):
        option = arguments.pop(0)
        if option == "--":
            break
        physical = option[-1] == "P"
    if len(arguments) > 1:
        return usage(shell, words, "too many arguments")
    target = arguments[0] if arguments else shell.lookup("HOME") or ""
    if not target:
        return shell.complain("cd: HOME is not set", 1)
    show = target == "-"
    if show:
        target = shell.lookup("OLDPWD") or ""
        if not target:
            return shell.complain("cd: OLDPWD is not set", 1)
    found = _on_cdpath(shell, target)
    return _change(shell, found or target, physical=physical, show=show or found is not None)


def _on_cdpath(shell: Shell, target: str) -> str | None:
    """The folder of that name below one of CDPATH's; None where the name is meant as it stands."""
    if target.startswith("/") or target.split("/", 1)[0] in (".", ".."):
        return None
    for folder in (shell.lookup("CDPATH") or "").split(os.pathsep):
        place = os.path.join(folder or ".", target)
        if os.path.isdir(place):
            return place if folder else None
    return None


def _change(shell: Shell, target: str, *, physical: bool, show: bool) -> int:
    here = shell.lookup("PWD") or os.getcwd()
    place = os.path.normpath(os.path.join(here, target))
    if place.startswith("//"):
        place = place[1:]
    try:
        shell.folder.change_folder(target if physical else place)
    except OSError as error:
        return shell.complain(f"cd: {target}: {(error.strerror or str(error)).lower()}", 1)
    except ValueError:
        return shell.complain("cd: the name holds a NUL character", 1)
    shell.assign("OLDPWD", here)
    shell.assign("PWD", os.getcwd() if physical else place)
    return write(shell, f"{place}\n") if show else 0


def pwd(shell: Shell, words: list[str]) -> int:
    """Says where the shell is; with `-P` without links in it."""
    known = shell.lookup("PWD")
    if "-P" in words[1:] or not known:
        try:
            known = os.getcwd()
        except OSError:
            return shell.complain("pwd: the working folder is gone", 1)
    return write(shell, f"{known}\n")


# -- umask -----------------------------------------------------------------------------------------------------------

_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def umask(shell: Shell, words: list[str]) -> int:
    """Shows (`-S`: in letters) or sets the permissions that new files do not get."""
    arguments, letters = words[1:], False
    while arguments and arguments[0] in ("-S", "--"):
        letters = letters or arguments[0] == "-S"
        if arguments.pop(0) == "--":
            break
    present = present_umask()
    if not arguments:
        return write(shell, f"{_in_letters(present)}\n" if letters else f"{present:04o}\n")
    mask = _octal(arguments[0]) if arguments[0][:1].isdigit() else _symbolic(arguments[0], present)
    if mask is None or len(arguments) > 1:
        return usage(shell, words, f"{arguments[-1]}: is no mask such as 022 or u=rwx,g=rx,o=")
    shell.folder.change_umask(mask)
    return write(shell, f"{_in_letters(mask)}\n") if letters else 0


def _in_letters(mask: int) -> str:
    """What files get, such as `u=rwx,g=rx,o=`."""
    return ",".join(
        f"{who}={''.join(letter for letter, bit in _BITS.items() if not mask >> shift & bit)}"
        for who, shift in _SHIFTS.items()
    )


def _octal(text: str) -> int | None:
    try:
        mask = int(text, 8)
    except ValueError:
        return None
    return mask if 0 <= mask <= 0o777 else None


def _symbolic(text: str, mask: int) -> int | None:
    """The mask after changes such as `g-w,o=`, which are about what files get."""
    allowed = ~mask & 0o777
    for clause in text.split(","):
        match = re.match(r"[ugoa]*(?=[-+=])", clause)
        if match is None:
            return None
        classes = [who for who in "ugo" if who in match.group() or "a" in match.group() or not match.group()]
        actions = clause[match.end() :]
        if not re.fullmatch(r"(?:[-+=](?:[rwxX]*|[ugo]))+", actions):
            return None
        for operator, permissions in re.findall(r"([-+=])([rwxXugo]*)", actions):
            allowed = _apply(allowed, classes, operator, permissions)
    return ~allowed & 0o777


def _apply(allowed: int, classes: list[str], operator: str, permissions: str) -> int:
    bits = 0
    for letter in permissions:
        bits |= allowed >> _SHIFTS[letter] & 7 if letter in _SHIFTS else _BITS[letter.lower()]
    for who in classes:
        shift = _SHIFTS[who]
        if operator == "=":
            allowed &= ~(7 << shift)
        allowed = allowed & ~(bits << shift) if operator == "-" else allowed | bits << shift
    return allowed
