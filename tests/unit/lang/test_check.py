"""All errors of a text, without those that only follow from others."""

import pytest

from llmos_shell.lang.check import MOST, syntax_errors
from llmos_shell.lang.errors import Source


def lines(text):
    return [error.position.line for error in syntax_errors(Source(text))]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a\nb | c\n", []),
        ("a )\nb\nc ;;\nfor 1 in a; do b; done\n", [1, 3, 4]),
        ("if a; then\n b )\n c\nfi\nd |||\n", [2, 5]),
        ("f() {\n while a; do\n  b ;;\n done\n}\ng )\n", [3, 6]),
        ("a )\necho 'open\nb )\n", [1, 2]),
        ("if a\nb\n", [1]),
        ("a )\ncat <<E )\n)\nE\nb )\n", [1, 2]),
        ("? what )\n? why\n", []),
        ("a\0b\n)\n", [1]),
        ("", []),
    ],
)
def test_lines_with_errors(text, wrong):
    assert lines(text) == wrong


def test_there_is_an_end_to_it():
    assert len(lines(")\n" * 100)) == MOST
