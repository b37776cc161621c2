"""Messages with their position, the line, and a caret under it."""

import pytest

from llmos_shell.lang.errors import ExpansionError, ShellSyntaxError, Source
from llmos_shell.lang.parser import Parser, parse


def pointed_out(text, name="f", **options):
    source = Source(text, name)
    parser = Parser(source, **options)
    with pytest.raises(ShellSyntaxError) as caught:
        while parser.next_command() is not None:
            pass
    return source.point_out(caught.value.message, caught.value.position.offset)


def test_file_line_column_and_caret():
    assert pointed_out("a\nif b; then\n  c\ndone\n") == (
        "f:4:1: unexpected `done`, expected `fi` for the `if` of line 2\n  done\n  ^"
    )


def test_the_opening_is_shown_where_the_end_is_missing():
    assert pointed_out("a\n if b; then c\n") == "f:2:2: `if` is not ended by `fi`\n   if b; then c\n   ^"


def test_wide_characters_and_tabs_keep_the_caret_in_its_place():
    line = "\techo '日本e\u0301' )"
    assert pointed_out(line).split("\n")[1:] == [f"  {line}", "  \t" + " " * len("echo 'xxxxe' ") + "^"]


def test_what_a_terminal_would_act_on_is_shown_instead():
    assert pointed_out("echo \x1b[2J\x07\x9b )").split("\n")[1] == "  echo ␛[2J␇\ufffd )"


def test_of_a_long_line_the_part_around_the_error():
    _, line, caret = pointed_out("echo " + "x" * 5000 + " ) " + "y" * 500).split("\n")
    assert len(line) < 110 and line.startswith("  …x") and line.endswith("y…")
    assert line[caret.index("^")] == ")"


def test_what_was_typed_has_no_name_and_a_line_only_if_there_are_several():
    assert pointed_out("echo )", "").split("\n")[0] == "unexpected `)`"
    assert pointed_out("echo\necho )", "").split("\n")[0] == "line 2: unexpected `)`"


def test_programs_inside_others():
    outer = Source("a\neval x\n", "script")
    inner = Source("b\n)", "eval", (outer, 2))
    assert inner.point_out("no", 2) == "script:2: eval:2:1: no\n  )\n  ^"
    assert inner.place(2) == "script:2: "


def test_places_of_commands():
    assert Source("a\nb", "x.llmsh").place(2) == "x.llmsh:2: "
    assert Source("a", "-c").place(0) == ""
    assert Source("a\nb", "-c").place(2) == "-c:2: "
    assert Source("a\nb", "").place(2) == ""


def test_an_alias_moves_nothing_out_of_its_line():
    assert pointed_out("a\nll x )\nb", aliases={"ll": "ls -l"}).split("\n")[:2] == [
        "f:2:10: unexpected `)`",
        "  ls -l  x )",
    ]


def test_expansion_errors_keep_the_place_they_first_got():
    error = ExpansionError("no", 3)
    first, second = Source("one two", "1"), Source("x", "2")
    assert error.located(first, 0).located(second, 0).describe() == "1:1:4: no\n  one two\n     ^"
    assert ExpansionError("no").describe() == "no"


@pytest.mark.parametrize("text", ["\udcff )", "a\r )", "\u202e )", ""])
def test_any_line_can_be_shown(text):
    Source(text).point_out("x", len(text))
    with pytest.raises(ShellSyntaxError):
        parse(f"{text})")
