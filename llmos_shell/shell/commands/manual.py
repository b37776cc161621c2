"""`help`, `man`, `apropos` and `whatis`: what there is, and how it is used."""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.tables import Style, style_of, to_json

_MANUAL_PROGRAM = "man"
"""The host's program for manuals."""


def _help(context: Context, args: Args) -> int:
    style = style_of(context)
    if not args.NAME:
        context.out.write(overview(style))
    for name in args.NAME:
        context.out.write(_short(name, style))
    return 0


def _short(name: str, style: Style) -> str:
    """The short page on a name. Raises ENOENT when there is none."""
    from llmos_shell.shell.manpage import render_help
    from llmos_shell.shell.manuals import find_manual, find_topic
    from llmos_shell.shell.topics import topic_page

    manual, topic = find_manual(name), find_topic(name)
    pages = [render_help(manual, style)] if manual is not None else []
    if topic is not None:
        pages.append(topic_page(topic, style))
    return "\n".join(pages) if pages else _elsewhere(name)


def _elsewhere(name: str) -> str:
    from shutil import which

    if which(name):
        return f"`{name}` is a program of this computer, not of llmos: `man {name}` or `{name} --help` says more\n"
    raise LlmosError(Code.ENOENT, f"{name}: there is no such command or topic", hint=_suggestion(name))


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    from llmos_shell.shell.manuals import page_names

    close = get_close_matches(name, page_names(), 1)
    return f"did you mean `{close[0]}`?" if close else f"`apropos {name}` searches, `help` lists all"


def overview(style: Style = Style()) -> str:  # noqa: B008 - immutable
    """All commands with their summaries, by family, and all topics."""
    from llmos_shell.shell import topics
    from llmos_shell.shell.interpreter.language_help import LANGUAGE
    from llmos_shell.shell.manuals import FAMILIES, all_manuals

    found = list(all_manuals())
    lines: list[str] = []
    for family, heading in FAMILIES.items():
        lines.append(style.paint(f"{heading}:", "bold"))
        lines += [f"  {manual.name:<10} {manual.summary}" for manual in found if manual.family == family]
        lines.append("")
    lines += [style.paint("The language:", "bold"), *_words(sorted(LANGUAGE)), ""]
    lines += [style.paint("Topics:", "bold"), *_words(topics.NAMES), ""]
    lines.append("`help NAME` says more, `man NAME` says all, and `apropos WORD` searches.")
    lines.append("`? how do I …` asks the assistant; `?` alone explains what went wrong last.")
    return "\n".join(lines) + "\n"


def _words(names: Sequence[str]) -> list[str]:
    from textwrap import wrap

    return [f"  {line}" for line in wrap(" ".join(names), 77, break_on_hyphens=False)]


def _rewrite_man(words: Sequence[str]) -> list[str]:
    """All words are for `_man` to judge, because they may be options of the host's `man`."""
    return list(words) if words and words[0] == "--help" else ["--", *words]


# -- man -------------------------------------------------------------------------------------------------------------


def _man(context: Context, args: Args) -> int:
    from llmos_shell.shell.manuals import has_page

    names = [word for word in args.NAME if not word.startswith("-")]
    if args.NAME[0] in ("-k", "-f"):
        if len(args.NAME) == 1:
            raise UsageError(f"{args.NAME[0]} needs a word: usage: man -k WORD…, man -f NAME…")
        searching = args.NAME[0] == "-k"
        return _search(context, args.NAME[1:], as_json=False) if searching else _describe(context, "man", args.NAME[1:])
    if len(names) < len(args.NAME) or not all(map(has_page, names)):
        return _host_manual(context, args.NAME)
    style = style_of(context)
    show_page(context, "\n".join(_full(name, style) for name in names))
    return 0


def _full(name: str, style: Style) -> str:
    from llmos_shell.shell.manpage import man_page
    from llmos_shell.shell.manuals import find_manual, find_topic
    from llmos_shell.shell.topics import topic_page

    manual, topic = find_manual(name), find_topic(name)
    pages = [man_page(manual, style)] if manual is not None else []
    if topic is not None:
        pages.append(topic_page(topic, style))
    return "\n".join(pages)


def _host_manual(context: Context, words: Sequence[str]) -> int:
    """What is not ours, the host's `man` is asked for."""
    from shutil import which

    if which(_MANUAL_PROGRAM) is None:
        name = words[-1]
        raise LlmosError(Code.ENOENT, f"{name}: there is no such command or topic", hint=_suggestion(name))
    context.out.flush()
    return context.shell.run_host([_MANUAL_PROGRAM, *words], context)


def show_page(context: Context, text: str) -> None:
    """Shows a page through the pager on a terminal, as it is elsewhere."""
    from llmos_shell.shell.pager import show

    show(context, text)


# -- apropos and whatis ----------------------------------------------------------------------------------------------


def _apropos(context: Context, args: Args) -> int:
    return _search(context, args.WORD, as_json=args.json)


def _search(context: Context, words: Sequence[str], *, as_json: bool) -> int:
    from llmos_shell.shell.manuals import search

    hits = search(words)
    if as_json:
        context.out.write(to_json(hits))
        return 0 if hits else 1
    if not hits:
        wanted = " ".join(words)
        raise LlmosError(
            Code.ENOENT, f"{wanted}: nothing is said about that", hint=f"try other words, or `ask how do I {wanted}`"
        )
    _list(context, [(hit.name + (" (topic)" if hit.kind == "topic" else ""), hit.summary) for hit in hits])
    return 0


def _whatis(context: Context, args: Args) -> int:
    return _describe(context, "whatis", args.NAME)


def _describe(context: Context, command: str, names: Sequence[str]) -> int:
    from llmos_shell.shell.manuals import find_manual, find_topic

    rows, status = [], 0
    for name in names:
        manual, topic = find_manual(name), find_topic(name)
        rows += [(name, manual.summary)] if manual is not None else []
        rows += [(f"{name} (topic)", topic.summary)] if topic is not None else []
        if manual is None and topic is None:
            status = context.error(command, f"{name}: there is no such command or topic: {_suggestion(name)}")
    _list(context, rows)
    return status


def _list(context: Context, rows: Sequence[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    context.out.writelines(f"{name:<{width}}  {summary}\n" for name, summary in rows)


_NAME = Operand("NAME", "commands and topics", "page", required=False, many=True)

COMMANDS = (
    Command(
        "help",
        "list all commands, or explain some",
        _help,
        family="help",
        operands=(_NAME,),
        description=(
            "Without NAME all commands are listed by family, and all topics. With NAME the short page of a command is "
            "printed, as `NAME --help` does, or the page of a topic. A name may be both, such as `jobs`."
        ),
        examples=(
            Example("help", "what is there?"),
            Example("help fork redirection", "a command, and a topic"),
        ),
        exit_statuses=(("0", "success"), *ERROR_STATUSES),
        see_also=("man", "apropos", "?"),
    ),
    Command(
        "man",
        "show the manual of commands and topics",
        _man,
        family="help",
        synopsis=("man NAME…", "man -k WORD…", "man -f NAME…", "man [SECTION] PROGRAM"),
        operands=(Operand("NAME", "commands and topics", "page", many=True),),
        rewrite=_rewrite_man,
        description=(
            "On a terminal the page is shown by a pager; elsewhere it is printed as plain text. `man -k` searches as "
            "`apropos` does, `man -f` says in a line what something is, as `whatis` does. Whatever is no command of "
            "this shell is left to the host's `man`, with all its options."
        ),
        examples=(
            Example("man ps", "all about `ps`"),
            Example("man scheduling | grep nice", "a topic, through a pipe"),
            Example("man 3 printf", "of the host", untested="needs the host's manual pages"),
        ),
        exit_statuses=(("0", "success"), ("1", "there is no such page"), ("STATUS", "that of the host's `man`")),
        environment=(
            ("MANPAGER", "the pager, with its options"),
            ("PAGER", "the pager, where MANPAGER is not set; neither: `less`, else `more`"),
        ),
        see_also=("help", "apropos", "whatis"),
    ),
    Command(
        "apropos",
        "search all manuals",
        _apropos,
        family="help",
        options=(Option(("--json",), "as JSON, with kinds and scores"),),
        operands=(Operand("WORD", "what it should have to do with", many=True),),
        description=(
            "Searches names, summaries, options, examples, descriptions and topics, and lists what matches every word, "
            "best first; where nothing does, what matches the most. Forms of a word count as the same: `pausing` finds "
            "`pause`."
        ),
        examples=(
            Example("apropos memory", "what has to do with memory?"),
            Example("apropos pause process", "with both"),
        ),
        exit_statuses=(("0", "something was found"), ("1", "nothing was found"), ERROR_STATUSES[1]),
        see_also=("whatis", "man", "?"),
    ),
    Command(
        "whatis",
        "say in a line what a command or topic is",
        _whatis,
        family="help",
        operands=(Operand("NAME", "commands and topics", "page", many=True),),
        examples=(Example("whatis fork", "one line", output="fork  copy a process with all it has in mind"),),
        exit_statuses=(("0", "success"), ("1", "one of them is unknown"), ERROR_STATUSES[1]),
        see_also=("apropos", "man"),
    ),
)
