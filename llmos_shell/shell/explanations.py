"""Explains the last failure in words, and mends the command line where it can: what `?` alone says.

Nothing is guessed by a model: the messages, the exit status and a look around decide. A mended line is only proposed if
the parser takes it. Pure but for `Surroundings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from shlex import quote
from typing import NamedTuple, Protocol

from llmos_shell.lang import ast
from llmos_shell.lang.errors import ShellSyntaxError
from llmos_shell.lang.parser import parse
from llmos_shell.shell.exit_statuses import CODES, PROGRAMS, READS_FILES, RUNS_PROGRAMS, describe_status
from llmos_shell.shell.failures import Failure, Trouble

TAKE_TEXT = frozenset({"run", "ask", "tokenize"})
"""Commands whose operands are a text, so that all of them may be put into quotes."""


class Explanation(NamedTuple):
    """What went wrong and what to do, a line per thought; and a command line to try instead, if there is one."""

    text: str
    line: str = ""


class Surroundings(Protocol):
    """What an explanation may look at."""

    def commands(self) -> Collection[str]:
        """Built-in commands, functions and aliases."""

    def programs(self) -> Collection[str]:
        """The host's programs."""

    def models(self) -> Collection[str]:
        """Names of models, as far as a running daemon says at once."""

    def kind(self, path: str) -> str:
        """`file`, `program`, `folder`, `missing`, or `closed` for what may not be read."""

    def names(self, folder: str) -> Collection[str]:
        """What is in a folder."""


def explain(failure: Failure, around: Surroundings) -> Explanation:
    """Explains the last thing that was complained of, or else the exit status."""
    if not failure.troubles:
        return _by_status(failure, around)
    trouble = failure.troubles[-1]
    return _KINDS[trouble.kind](failure, trouble, around)


# -- the text of the program -----------------------------------------------------------------------------------------


def _syntax(failure: Failure, trouble: Trouble, around: Surroundings) -> Explanation:
    text = f"The line is no program: {trouble.message}. Nothing of it was run."
    if trouble.offset < 0:
        return Explanation(text)
    for why, line in _repairs(failure.text, trouble):
        if line != failure.text and _is_program(line):
            return Explanation(f"{text}\n{why}", line)
    return Explanation(f"{text}\nIf the sign is meant as text, put it into quotes or a backslash before it.")


def _repairs(text: str, trouble: Trouble) -> Iterator[tuple[str, str]]:
    """Ways to mend a text that does not parse, likeliest first; most of them do not parse either."""
    message, at = trouble.message, trouble.offset
    found = re.match(r"[&|;<>()]+|[^\s&|;<>()]+", text[at:])
    token = found.group() if found else ""
    before, after = text[:at].rstrip(), text[at + len(token) :]
    first, _, rest = text.strip().partition(" ")
    if token[:1] in tuple("()") and first in TAKE_TEXT and not re.search(r"[\"'`$\\]", rest):
        yield "Parentheses mean something to the shell: put the text into quotes.", f"{first} {quote(rest)}"
    expected = re.search(r"(?<!un)expected `(\w+)`", message)
    if expected:
        yield f"`{expected.group(1)}` is missing before it.", f"{before.rstrip(';')}; {expected.group(1)} {text[at:]}"
        yield f"`{expected.group(1)}` should stand there.", f"{before} {expected.group(1)}{after}"
    for opening, closing in (("'", "'"), ('"', '"'), ("`", "`"), ("$(", ")"), ("${", "}"), ("$((", "))")):
        if f"unterminated {opening}" in message:
            apostrophe = re.search(r"(?<=\w)'(?=\w)", text)
            if opening == "'" and apostrophe:
                yield (
                    "An apostrophe opens a quote: a backslash before it makes it a letter.",
                    (f"{text[: apostrophe.start()]}\\{text[apostrophe.start() :]}"),
                )
            yield f"`{opening}` is opened and never closed.", text + closing
    ended = re.search(r"is not ended by `([^`]+)`", message)
    if ended:
        yield f"`{ended.group(1)}` is missing at the end.", f"{text.rstrip().rstrip(';')}; {ended.group(1)}"
    if token:
        yield f"Without `{token}` it is one.", f"{before} {after.lstrip()}".strip()
        yield f"As text, `{token}` needs a backslash or quotes.", f"{text[:at]}{_escape(token)}{after}"


def _escape(token: str) -> str:
    return "".join("\\" + char if char in "&|;<>()" else char for char in token)


def _is_program(text: str) -> bool:
    try:
        return bool(parse(text, more=True).items)
    except ShellSyntaxError:
        return False


def _expansion(failure: Failure, trouble: Trouble, around: Surroundings) -> Explanation:
    message = trouble.message
    name, _, what = message.partition(": ")
    if what == "is read-only":
        return Explanation(
            f"`{name}` was made read-only: it keeps its value as long as this shell lives. Use another name."
        )
    if "division by zero" in message:
        return Explanation("A number was divided by 0 in `$((…))`; an unset variable counts as 0 there.")
    if "not set" in what or "unset" in what or "unbound" in what:
        return Explanation(
            f"`{name}` has no value, and `set -u` makes that an error: give it one, or write `${{{name}:-}}` for none."
        )
    return Explanation(f"A word of the line could not be expanded: {message}. What comes after it was not run.")


# -- the interpreter's complaints ------------------------------------------------------------------------------------


def _shell(failure: Failure, trouble: Trouble, around: Surroundings) -> Explanation:
    for pattern, handler in _SHELL_MESSAGES:
        found = re.fullmatch(pattern, trouble.message, re.DOTALL)
        if found:
            return handler(failure, found, around)
    return Explanation(f"The shell says: {trouble.message}.\n{describe_status(failure.status)}")


def _not_found(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    word = found["name"]
    text = f"`{word}` is no built-in command, function or alias, and no program in a folder of PATH (status 127)."
    kind = around.kind(word)
    if word in around.models():
        return Explanation(f"{text}\nIt is a model: `chat` talks to it.", _replace(failure.text, word, f"chat {word}"))
    close = _closest(word, around.commands()) or _closest(word, around.programs())
    if kind in ("file", "program") and not close:
        run = f"./{word}" if kind == "program" else f"sh {word}"
        return Explanation(
            f"{text}\nThere is a file of that name here: name it by its path.", _replace(failure.text, word, run)
        )
    if kind == "folder" and not close:
        return Explanation(f"{text}\nIt is a folder here: `cd` goes there.", _replace(failure.text, word, f"cd {word}"))
    words = failure.text.split()
    if len(words) > 2 and all(re.fullmatch(r"[\w',.?-]+", each) for each in words) and (len(words) > 4 or not close):
        return Explanation(f"{text}\nIf it was a question, begin the line with `?`.", f"? {failure.text.strip()}")
    if close:
        line = _replace(failure.text, word, close)
        return Explanation(f"{text}\nThe nearest that there is: `{close}`.", line)
    return Explanation(f"{text}\n`help` lists the commands, `echo $PATH` the folders that are searched.")


def _is_folder(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    word = found["name"]
    if _first_word(failure.text) == word:
        return Explanation(f"`{word}` is a folder, and a folder cannot be run.", f"cd {quote(word)}")
    return Explanation(f"`{word}` is a folder where a file is needed.")


def _denied(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    word = found["name"]
    if failure.status == 126 and around.kind(word) in ("file", "missing"):
        return Explanation(
            f"`{word}` is there, but is not marked as a program (status 126).\n`chmod +x` marks it; `sh {word}` runs "
            "it as a script all the same.",
            f"chmod +x {quote(word)} && {failure.text.strip()}",
        )
    return Explanation(
        f"You may not use `{word}` that way: `ls -ld {quote(word)}` shows who may.", f"ls -ld {quote(word)}"
    )


def _missing(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    word = found["name"]
    folder, slash, name = word.rstrip("/").rpartition("/")
    where = folder + slash or "."
    if around.kind(where) == "missing":
        target = quote(word if _first_word(failure.text) == "cd" else folder)
        return Explanation(f"The folder `{folder}` does not exist.", f"mkdir -p {target} && {failure.text.strip()}")
    near = _closest(name, around.names(where))
    text = f"There is no `{name}` in {'this folder' if where in ('.', './') else f'`{where}`'}."
    if near:
        return Explanation(
            f"{text} The nearest name there: `{near}`.", _replace(failure.text, word, quote(folder + slash + near))
        )
    return Explanation(f"{text} `ls` shows what there is.", f"ls {quote(where)}" if where not in (".", "./") else "ls")


def _interpreter_gone(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    word = found["name"]
    return Explanation(
        f"`{word}` is a script whose first line (`#!…`) names a program that is not there.", f"head -n 1 {quote(word)}"
    )


def _stopped_jobs(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    return Explanation(
        "The shell would take its jobs with it: `jobs` shows them, `disown` keeps them, `exit` again ends them.", "jobs"
    )


def _unwritten(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    full = "space" in found["why"]
    return Explanation(
        f"What `{found['name']}` had to say could not be written: {found['why']}.", "df -h" if full else ""
    )


def _bracket(failure: Failure, found: re.Match[str], around: Surroundings) -> Explanation:
    line = re.sub(r"(?<=[^\s\]])\]", " ]", re.sub(r"(?<!\S)\[(?=[^\s\[])", "[ ", failure.text))
    return Explanation(f"In a condition, {PROGRAMS['[', 2].partition(': ')[2]}.", line if line != failure.text else "")


_Handler = Callable[[Failure, "re.Match[str]", Surroundings], Explanation]
_SHELL_MESSAGES: tuple[tuple[str, _Handler], ...] = (
    (r"(?:exec: )?(?P<name>.+): command not found", _not_found),
    (r"(?:\w+: )?(?P<name>.+): is a (?:directory|folder)", _is_folder),
    (r"(?:\w+: )?(?P<name>.+): permission denied", _denied),
    (r"(?:\w+: )?(?P<name>.+): no such (?:file or directory|file|folder)", _missing),
    (r"(?P<name>.+): its interpreter .*", _interpreter_gone),
    (r"(?P<name>\w+): cannot write: (?P<why>.*)", _unwritten),
    (r"(?P<name>\[): .*", _bracket),
    (r"(?P<name>)there are \w+ jobs: .*", _stopped_jobs),
)


# -- built-in commands -----------------------------------------------------------------------------------------------


def _command(failure: Failure, trouble: Trouble, around: Surroundings) -> Explanation:
    said = f"`{trouble.command}` says: {trouble.message}{'' if trouble.message[-1:] in '.?!…' else '.'}"
    mended = _mend_word(failure, trouble, around)
    if not trouble.code:
        if failure.status == 2:
            line = mended or f"{trouble.command} --help"
            return Explanation(f"{said}\nIt was called in a way it does not understand (status 2).", line)
        return Explanation(f"{said}\n{describe_status(failure.status)}", mended)
    meaning, line = CODES.get(trouble.code, ("", ""))
    if "no such job" in trouble.message:
        meaning, line = (
            "Jobs have numbers of their own in each shell, from `%1` on, and leave the list when they end.",
            "jobs",
        )
    elif "no model" in trouble.message:
        meaning, line = (
            "`models` lists what can be run; weights that are not listed are named by the path of a .gguf file.",
            "models",
        )
    elif trouble.code in ("ENOENT", "EINVAL"):
        line = f"{trouble.command} --help"
    return Explanation("\n".join(filter(None, (said, meaning))), mended or line)


def _mend_word(failure: Failure, trouble: Trouble, around: Surroundings) -> str:
    """The line with the word that was complained of replaced by what is likely meant; empty where that is not clear."""
    message = trouble.message
    wrong = re.search(
        r"(?:unknown option|no (?:such )?\w+|kernel|policy) ['`]?([^\s:'`]+)|`([^`]+)` is not one of", message
    )
    if wrong is None:
        return ""
    word = wrong.group(1) or wrong.group(2)
    meant = re.search(r"did you mean [`']?([^\s`'?]+)", message)
    choices = re.search(r"(?:is not one of|known:|there are) ([\w., -]+)", message)
    near = meant.group(1) if meant else _closest(word, re.split(r"[,;]? +|, ", choices.group(1))) if choices else ""
    if not near and "model" in message:
        near = _closest(word, around.models())
    return _replace(failure.text, word, near) if near else ""


# -- the exit status alone -------------------------------------------------------------------------------------------


def _missing_program(failure: Failure, runner: str, around: Surroundings) -> Explanation | None:
    """What `nice`, `sudo` and the like were to run, and did not find."""
    if failure.status != 127 or runner not in RUNS_PROGRAMS:
        return None
    for word in _last_words(failure.text)[1:]:
        if re.fullmatch(r"[A-Za-z][\w.-]*", word):
            near = "" if word in around.programs() else _closest(word, around.programs())
            near = near or ("" if word in around.commands() else _closest(word, around.commands()))
            text = f"`{runner}` did not find `{word}` (status 127)."
            return (
                Explanation(f"{text} The nearest that there is: `{near}`.", _replace(failure.text, word, near))
                if near
                else None
            )
    return None


def _missing_file(failure: Failure, program: str, around: Surroundings) -> Explanation | None:
    """A file that a program was given, that is not there while one of nearly that name is."""
    if program not in READS_FILES:
        return None
    for word in _last_words(failure.text)[1:]:
        folder, slash, name = word.rpartition("/")
        near = (
            ""
            if word.startswith("-") or around.kind(word) != "missing"
            else _closest(name, around.names(folder + slash or "."))
        )
        if near:
            line = _replace(failure.text, word, quote(folder + slash + near))
            return Explanation(f"There is no `{word}`. The nearest name there: `{near}`.", line)
    return None


def _by_status(failure: Failure, around: Surroundings) -> Explanation:
    word = (_last_words(failure.text) or [""])[0]
    known = PROGRAMS.get((word, failure.status))
    mended = _missing_program(failure, word, around) or _missing_file(failure, word, around)
    if mended:
        return mended
    what = f"`{word}`" if word else "The command"
    if known:
        return Explanation(f"{what} ended with status {failure.status}: {known}.")
    text = f"{what} ended with status {failure.status}. {describe_status(failure.status)}"
    if failure.status < 124 and word:
        return Explanation(f"{text}\nIts own message, if it gave one, stands above; `man {word}` lists its statuses.")
    return Explanation(text)


def _first_word(text: str) -> str:
    """The name of the command a text runs first; empty when that is not a plain word."""
    return (_words_at(text, 0) or [""])[0]


def _last_words(text: str) -> list[str]:
    """The command a text runs last, in words; those that are not plain are empty."""
    return _words_at(text, -1)


def _words_at(text: str, which: int) -> list[str]:
    try:
        items = parse(text, ask=True).items
    except ShellSyntaxError:
        return []
    node: object = items[which] if items else None
    while not isinstance(node, ast.Simple):
        if isinstance(node, ast.Pipeline | ast.AndOr):
            node = node.commands[which]
        elif isinstance(node, ast.Redirected | ast.Background):
            node = node.body
        else:
            return []
    return [word.literal() or "" for word in node.words]


# -- words -----------------------------------------------------------------------------------------------------------


def _closest(word: str, names: Collection[str]) -> str:
    """The likeliest that was meant, if any is near."""
    if len(word) < 2:
        return ""
    same = [name for name in names if name.casefold() == word.casefold() and name != word]
    swapped = [name for name in names if len(name) == len(word) and sorted(name) == sorted(word) and name != word]
    near: Sequence[str] = same or swapped or get_close_matches(word, names, 1, 0.7)
    return near[0] if near else ""


def _replace(text: str, old: str, new: str) -> str:
    """The text with the first such word replaced."""
    return re.sub(rf"(?<![^\s;|&()'\"=]){re.escape(old)}(?![^\s;|&()'\"=])", lambda _: new, text, count=1).strip()


_KINDS = {"syntax": _syntax, "expansion": _expansion, "shell": _shell, "command": _command}
