"""What a command's context does with text that a model made."""

from __future__ import annotations

import io

from llmos_shell.shell.command import Context


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO, text: str) -> str:
    context = Context(shell=None, stdin=io.BytesIO(), out=out, err=io.StringIO())  # type: ignore[arg-type]
    context.show(text)
    return out.getvalue()


def test_a_terminal_never_obeys_a_model() -> None:
    assert (
        shown(_Terminal(), "a\x1b]0;owned\x07\x1b[2Jb\r\x9b5n\x7f\n\tc é 字") == "a␛]0;owned␇␛[2Jb␍\ufffd5n␡\n\tc é 字"
    )


def test_elsewhere_text_is_left_as_it_is() -> None:
    assert shown(io.StringIO(), "a\x1b[2Jb\r\n") == "a\x1b[2Jb\r\n"
