"""Syntax errors, where they are, and what is merely incomplete; positions in the tree; questions to the assistant."""

import pytest

from llmos_shell.lang.ast import Ask, Background, Literal, Parameter, Pipeline, Simple, Tilde
from llmos_shell.lang.errors import ShellSyntaxError, Source
from llmos_shell.lang.parser import parse


def error_of(text, **options):
    with pytest.raises(ShellSyntaxError) as caught:
        parse(text, **options)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("echo a | | b", 1, 10, "unexpected `|`"),
        ("a\n  b ;; c", 2, 5, "unexpected `;;`"),
        ("fi", 1, 1, "unexpected `fi`"),
        ("echo )", 1, 6, "unexpected `)`"),
        ("if a; then b; done", 1, 15, "unexpected `done`"),
        ("for 1x in a; do b; done", 1, 5, "expected a variable's name"),
        ("x\0y", 1, 2, "NUL"),
        ("echo ${x!}", 1, 6, "bad substitution"),
        ("a > ", 1, 3, "no file after `>`"),
        ("a >\nb", 1, 4, "unexpected end of line"),
        ("echo 99999999999999999999>x", 1, 6, "no file descriptor"),
        ("a && && b", 1, 6, "unexpected `&&`"),
        ("case x in a b) ;; esac", 1, 13, "expected `)`"),
        ("f( x", 1, 4, "expected `)`"),
        ("echo $(a;; b)", 1, 9, "unexpected `;;`"),
    ],
)
def test_errors_have_positions(text, line, column, part):
    error = error_of(text)
    assert (error.position.line, error.position.column) == (line, column)
    assert part in error.message
    assert str(error).startswith(f"line {line}, column {column}: syntax error: ")


@pytest.mark.parametrize(
    "text",
    [
        "echo 'a", 'echo "a', "echo $(ls", "echo `ls", "echo ${x", "echo ${x:-", "echo $((1 +", "echo $'a", "(", "{ a;",
        "if a", "if a; then", "if a; then b; else", "while a; do b", "for", "for x", "for x in a b", "for x in a; do",
        "case", "case x", "case x in", "case x in a) b", "case x in a)", "f()", "f() {", "a &&", "a ||", "a |", "!",
        "a |\n", "function", "cat <<E\nbody", "echo a\\", "cat <<'E' && b\n", "$(cat <<E\n", "a >",
    ],
)  # fmt: skip
def test_incomplete(text):
    assert error_of(text, more=True).incomplete


@pytest.mark.parametrize("text", ["fi", "a | | b", ")", "echo ${x!}", "if a; then b; done", "a;; b", "f( x", "& a"])
def test_wrong_is_not_incomplete(text):
    assert not error_of(text, more=True).incomplete


@pytest.mark.parametrize("text", ["", "\n", "# c", "a", "a;", "a &", "cat <<E\nx\nE", "if a; then b; fi", "echo a\\\\"])
def test_complete(text):
    parse(text, more=True)


def test_unfinished_here_document_ends_with_a_script():
    parse("cat <<E\nbody")


def test_questions_to_the_assistant():
    tree = parse("? how do I 'list\n  ?\necho ? a; ls\n?why $x | y", ask=True)
    assert [item.text for item in tree.items if isinstance(item, Ask)] == ["how do I 'list", "", "why $x | y"]
    assert isinstance(tree.items[2], Simple)


def test_questions_are_words_in_other_programs():
    tree = parse("? x")
    assert isinstance(tree.items[0], Simple)


def test_nodes_know_where_they_begin():
    text = "a\n b | cc $x &\n"
    background = parse(text).items[1]
    assert isinstance(background, Background)
    pipeline = background.body
    assert isinstance(pipeline, Pipeline)
    word = pipeline.commands[1].words[1]
    assert text[word.offset :].startswith("$x")
    assert Source(text).position(word.offset) == (word.offset, 2, 9)


def test_tildes():
    tree = parse("a=~/x:~:b~ c ~root ~'q' b~")
    value = tree.items[0].assignments[0].value
    assert [type(part) for part in value.parts] == [Tilde, Literal, Tilde, Literal]
    assert [type(word.parts[0]) for word in tree.items[0].words] == [Literal, Tilde, Literal, Literal]


def test_parameter_operators():
    for operator in (":-", "-", ":=", "=", ":?", "?", ":+", "+", "#", "##", "%", "%%"):
        part = parse(f"${{x{operator}w}}").items[0].words[0].parts[0]
        assert isinstance(part, Parameter)
        assert part.operator == operator
