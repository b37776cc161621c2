"""Syntax errors, where they are, and what is merely incomplete; positions in the tree; questions to the assistant."""

import pytest

from llmos_shell.lang.ast import Ask, Background, Literal, Node, Parameter, Pipeline, Simple, Tilde
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


BEGINNINGS = {
    "ArithmeticCommand": "((",
    "ArrayValue": "(",
    "Assignment": ("a", "m"),
    "Conditional": "[[",
    "Element": ("x", "[k]", '"'),
    "ForArithmetic": "for ((",
    "Parameter": "$",
    "ProcessSubstitution": ("<(", ">("),
    "Select": "select",
    "TestBinary": "$b",
    "TestUnary": "-f",
    "Redirect": (">", "{fd}"),
}


def nodes(value):
    """All nodes of a tree."""
    if isinstance(value, Node):
        yield value
        for name in value.fields:
            yield from nodes(getattr(value, name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from nodes(each)


def test_the_nodes_of_bash_know_where_they_begin():
    text = (
        'a=(x [k]=v "y z")\n m[i + 1]+=$((a[0])) \n[[ -f f && ( $b =~ ^(x|y)$ || ! -f g ) ]] {fd}>f\n'
        "for (( i = 0; i < ${#a[@]}; i++ )); do (( i += 2 )); done\nselect x in ${a[@]:1:$n}; do\n"
        "cat <(ls) > >(wc)\ndone\n"
        '$(echo "${x/$y/`echo $z`}")'
    )
    seen = set()
    for node in nodes(parse(text)):
        beginning = BEGINNINGS.get(type(node).__name__)
        if beginning is not None and "`" not in text[node.offset - 6 : node.offset]:
            seen.add(type(node).__name__)
            assert text.startswith(beginning, node.offset), (node, text[node.offset :][:10])
        assert 0 <= node.offset <= len(text)
    assert seen == set(BEGINNINGS)


@pytest.mark.parametrize(
    "text",
    ["a=(", "a=(x\n", "[[", "[[ a", "[[ a &&", "[[ ( a", "[[ a =~ (", "((", "((1 +", "for ((i=0;", "for ((;;))",
     "select", "select x in a\n", "cat <(", "cat <(ls", "${a[", "${x/a", "${x:1", "${x:1:", "a |&", "function f",
     "case x in @(a", "declare a=(", "$'a", "fo\\"],
)  # fmt: skip
def test_incomplete_bash(text):
    with pytest.raises(ShellSyntaxError) as caught:
        parse(text, more=True)
    assert caught.value.incomplete


@pytest.mark.parametrize(
    "text",
    ["[[ ]]", "[[ a b ]]", "[[ a == ]]", "[[ -f a b ]]", "a=(x) )", "a[1]=(x)", "((1", "for ((1;2)); do a; done",
     "${a[]}", "${x@Z}", "${!}x}y)", "select 1x in a; do b; done", "a=(&)", "[[ a ]] b", "echo a=(b)", "x |& ;", "]]"],
)  # fmt: skip
def test_wrong_bash(text):
    with pytest.raises(ShellSyntaxError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a |& b", "a 2>&1 | b"),
        ("{ a; } >f |& b", "{ a; } >f 2>&1 | b"),
        ("function f { a; }", "f() { a; }"),
        ("ec\\\nho $\\\nfo\\\no ${b\\\nar} &\\\n& c >\\\n> d", "echo $foo ${bar} && c >> d"),
        ("[[ a &&\nb ]]", "[[ a && b ]]"),
        ("[[ (a) && ! ! b ]]", "[[ a && b ]]"),
        ("a=( x\n# c\ny )", "a=(x y)"),
        ("for ((  i=0 ;i<3;  i++ ))\ndo a; done", "for ((i=0; i<3; i++)); do a; done"),
        ("echo ${x: 1 : 2 }", "echo ${x:1:2}"),
    ],
)
def test_the_same_in_other_words(text, same):
    assert parse(text) == parse(same)


def test_two_subshells_are_no_arithmetic():
    assert type(parse("((a); (b))").items[0]).__name__ == "Subshell"
    assert type(parse("((a) | (b))").items[0]).__name__ == "Subshell"
    assert type(parse("((a))").items[0]).__name__ == "ArithmeticCommand"
