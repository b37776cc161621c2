"""Short help for the commands that are part of the language: they work as POSIX sh or bash says.

They have no declarations, because they need the interpreter; a test sees to it that none is missing here.
"""

from __future__ import annotations

LANGUAGE: dict[str, tuple[str, str]] = {
    "alias": ("alias [NAME[=TEXT]…]", "let a word stand for a text, or show what words stand for"),
    "unalias": ("unalias [-a] NAME…", "forget aliases"),
    "break": ("break [N]", "leave N loops"),
    "continue": ("continue [N]", "go on with the next round of a loop"),
    "cd": ("cd [FOLDER]", "change the folder; without one go home, with `-` to the last one"),
    "pwd": ("pwd", "print the present folder"),
    "command": ("command [-v] COMMAND…", "run a command even if a function has its name; -v: say what it is"),
    "type": ("type NAME…", "say what a word means as a command"),
    "hash": ("hash [-r]", "forget where programs were found"),
    "echo": ("echo [-n] [WORD…]", "print words and a line end; -n: without it"),
    "printf": ("printf FORMAT [WORD…]", "print words by a format"),
    "read": (
        "read [-rs] [-p TEXT] [-t SECONDS] [-n COUNT] [-a ARRAY] NAME…",
        "read a line of standard input into variables, or its fields into an array",
    ),
    "mapfile": ("mapfile [-t] [-d CHAR] [-n COUNT] [ARRAY]", "read lines into an array; -t: without their ends"),
    "readarray": ("readarray [-t] [ARRAY]", "the same as `mapfile`"),
    "test": ("test EXPRESSION", "compare texts and numbers, look at files; the answer is the exit status"),
    "[": ("[ EXPRESSION ]", "the same as `test`"),
    "eval": ("eval WORD…", "run words as commands"),
    "exec": ("exec [COMMAND…]", "become that command; without one keep its redirections"),
    "source": ("source FILE [ARG…]", "run the commands of a file in this shell"),
    ".": (". FILE [ARG…]", "the same as `source`"),
    "export": ("export [NAME[=VALUE]…]", "hand variables to programs, or show those that are"),
    "readonly": ("readonly [NAME[=VALUE]…]", "let variables stay as they are"),
    "declare": ("declare [-aAilurxgpf] [NAME[=VALUE]…]", "variables with attributes, such as arrays; -p: show them"),
    "typeset": ("typeset [-aAilurxgpf] [NAME[=VALUE]…]", "the same as `declare`"),
    "let": ("let EXPRESSION…", "calculate; the status is 0 if the last value is not 0"),
    "local": ("local NAME[=VALUE]…", "variables of the present function"),
    "set": ("set [-eux…] [-o OPTION] [WORD…]", "options of the shell, and its positional parameters"),
    "unset": ("unset [-f] NAME…", "forget variables, elements of arrays, or functions"),
    "shift": ("shift [N]", "drop the first N positional parameters"),
    "getopts": ("getopts OPTIONS NAME", "read the options of a script one by one"),
    "return": ("return [STATUS]", "leave a function"),
    "trap": ("trap [COMMAND] SIGNAL…", "run a command when a signal comes, or at EXIT"),
    "umask": ("umask [MODE]", "permissions that new files do not get"),
    "true": ("true", "do nothing, with status 0"),
    "false": ("false", "do nothing, with status 1"),
    ":": (":", "do nothing, with status 0"),
}
"""Usage and summary by name."""


def render_language_help(name: str) -> str:
    """The page of one of them."""
    usage, summary = LANGUAGE[name]
    return f"usage: {usage}\n\n{summary[0].upper()}{summary[1:]}. Part of the shell language, as in POSIX sh or bash.\n"


def render_language_markdown() -> str:
    """Their section of docs/commands.md."""
    rows = [f"| `{usage.replace('|', '&#124;')}` | {summary} |" for usage, summary in LANGUAGE.values()]
    head = "These are part of the language, and work as POSIX sh or bash says.\n\n| command | meaning |\n|---|---|\n"
    return head + "\n".join(rows) + "\n"
