"""`fmt`: scripts in canonical layout."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.commands import describe_os_error

_STDIN = "stdin"


def _fmt(context: Context, args: Args) -> int:
    status = 0
    if args.write and not args.FILE:
        raise UsageError("--write: needs a FILE to change: usage: fmt -w FILE…")
    for name in args.FILE or ["-"]:
        try:
            status = max(status, _format(context, name, args))
        except LlmosError as error:
            status = max(status, context.error("fmt", error))
        except BrokenPipeError:
            raise
        except OSError as error:
            status = max(status, context.error("fmt", describe_os_error(error)))
    return status


def _format(context: Context, name: str, args: Args) -> int:
    """Formats one file and shows what was asked for; 2 if it is no program, 1 with --check if it would change."""
    from llmos_shell.lang.errors import ShellSyntaxError, Source
    from llmos_shell.lang.layout import LayoutError, format_text

    data = _read(context, name)
    text, shown = _decode(data, name), _STDIN if name == "-" else name
    try:
        formatted = format_text(text, shown)
    except ShellSyntaxError as error:
        message = Source(text, shown).point_out(error.message, error.position.offset)
        print(f"llmos: {message}", file=context.err, flush=True)
        return 2
    except LayoutError as error:
        raise LlmosError(Code.EINVAL, f"{shown}: {error}", hint="it is left as it is: please report this") from None
    changed = formatted != text
    if args.list and changed:
        context.out.write(f"{shown}\n")
    if args.diff and changed:
        context.out.writelines(_diff(text, formatted, shown))
    if args.write and name != "-":
        if changed:
            _replace(name, formatted.encode("utf-8", "surrogateescape"))
    elif not (args.list or args.diff or args.check):
        context.out.flush()
        context.out.write(formatted)
    return int(changed and args.check)


def _read(context: Context, name: str) -> bytes:
    if name == "-":
        return context.stdin.read()
    with open(name, "rb") as file:
        return file.read()


def _decode(data: bytes, name: str) -> str:
    """The text of a script; only UTF-8 comes out as it went in."""
    if b"\0" in data[:128]:
        raise LlmosError(Code.EINVAL, f"{name}: is a binary file, not a script")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = f"{name}: is not UTF-8 (byte {error.start})"
        raise LlmosError(Code.EINVAL, what, hint="convert it with iconv") from None


def _diff(before: str, after: str, name: str) -> Iterator[str]:
    from difflib import unified_diff

    name = name.lstrip("/")
    for line in unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """With their ends; a carriage return or a form feed ends none."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]


def _replace(path: str, data: bytes) -> None:
    """Writes a file as a whole or not at all; it keeps its mode, and a link goes on leading to it."""
    path = os.path.realpath(path)
    temporary = f"{path}.llmos-fmt-{os.getpid()}"
    mode = stat.S_IMODE(os.stat(path).st_mode)
    try:
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


COMMANDS = (
    Command(
        "fmt",
        "lay out scripts anew: indentation and spaces",
        _fmt,
        family="shell",
        options=(
            Option(("-w", "--write"), "change the files instead of printing the result"),
            Option(("-d", "--diff"), "print what would change"),
            Option(("-l", "--list"), "print the names of files that would change"),
            Option(("--check",), "exit status 1 if any would change"),
        ),
        operands=(Operand("FILE", "scripts; none or -: standard input", "file", required=False, many=True),),
        description=(
            "Comments, line breaks, here-documents and quotes stay as they are, and what the script does stays the "
            "same. A script with a syntax error is left alone; the error is shown, with exit status 2."
        ),
        examples=(
            Example("echo 'if true;then echo hi;fi' | fmt", "of text in a pipeline", "if true; then echo hi; fi"),
            Example("fmt -w deploy.llmsh", "a file in its place", before="echo 'echo  hi' >deploy.llmsh"),
            Example("fmt --check -d *.llmsh", "in a test of a project", before="echo hi >a.llmsh"),
        ),
        exit_statuses=(
            ("0", "success"),
            ("1", "with `--check`: a file would change; or something failed"),
            ("2", "a file is no program, or it was called wrongly"),
        ),
        see_also=("scripts", "language"),
    ),
)
