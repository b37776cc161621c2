"""Canonical layout. That it changes nothing but blanks is a property tested in `test_roundtrip.py`."""

import pytest

from llmos_shell.lang.errors import ShellSyntaxError
from llmos_shell.lang.layout import format_text

UGLY = r"""#!/usr/bin/env llmos
# head @



set -eu   # why
xx=1 # w
f ()
{ # open
echo a;echo b&
   # inside

if [ -f x ]&&[ -f y ]; then   # cond
 echo 'multi
 line' >f 2>&1 </dev/null
# last in if
elif a |
b |
c; then
while read -r x;do echo $x;done <<EOF | sort
   body $(a   b)
EOF
else
x=$(
foo |
bar # c
# d
)
fi
}
case $x in
a|b) echo 1;;
# comment
(c)
echo 2
echo 3
;;
*)
esac
long command \
with arguments \
   and more |
   grep x
( a; b )
( (a); b )
a && {
b
} || c
echo "$( a )" `b   c` $((1+2))
foo(){ a;}
! a
? what is   this
cat <<-'E' # doc
	x
	E
   # end


"""

NEAT = r"""#!/usr/bin/env llmos
# head

set -eu  # why
xx=1     # w
f()
{  # open
    echo a; echo b &
    # inside

    if [ -f x ] && [ -f y ]; then  # cond
        echo 'multi
 line' > f 2>&1 < /dev/null
        # last in if
    elif a |
        b |
        c; then
        while read -r x; do echo $x; done <<EOF | sort
   body $(a   b)
EOF
    else
        x=$(
            foo |
                bar  # c
            # d
        )
    fi
}
case $x in
    a | b) echo 1 ;;
    # comment
    (c)
        echo 2
        echo 3
        ;;
    *)
esac
long command \
    with arguments \
    and more |
    grep x
(a; b)
( (a); b)
a && {
    b
} || c
echo "$(a)" `b   c` $((1+2))
foo() { a; }
! a
? what is   this
cat <<-'E'  # doc
	x
	E
# end
"""


def test_a_whole_script():
    assert format_text(UGLY.replace("@", "  ")) == NEAT
    assert format_text(NEAT) == NEAT


@pytest.mark.parametrize(
    ("text", "neat"),
    [
        ("", ""),
        ("\n\n", ""),
        ("# only\n", "# only\n"),
        ("a", "a\n"),
        ("\\\na", "a\n"),
        ("a &&\\\n? b", "a && \\\n    ? b\n"),
        ("a\\\n  b\n", "a \\\n    b\n"),
        ("a 2>x>>y <&3 3>&- <<<z", "a 2> x >> y <&3 3>&- <<< z\n"),
        ("x=a\ty=b   z", "x=a y=b z\n"),
        ('x=( a "b c"  $(d;e) # z\n  # y\n [3]=4\n)', 'x=(a "b c" $(d; e)  # z\n    # y\n    [3]=4\n)\n'),
        ("f() {\nlocal -a y=(\n--a\n)\n}", "f() {\n    local -a y=(\n        --a\n    )\n}\n"),
        ("x=()\n((x=(1)))", "x=()\n((x=(1)))\n"),
        ("[[ a =~ (b|c)&&d ]]&&e", "[[ a =~ (b|c)&&d ]] && e\n"),
        ("!\\\n a", "! \\\n    a\n"),
        ("?\x85 ", "?\x85\n"),
        ("if a\nthen b\nelse\nc\nfi", "if a\nthen b\nelse\n    c\nfi\n"),
        ("a # 1\nbb # 2\n\nccc # 3", "a   # 1\nbb  # 2\n\nccc  # 3\n"),
        ("日本 # 1\na # 2", "日本  # 1\na     # 2\n"),
        ("a <<E; b # c\nx\nE\nc # d", "a <<E; b  # c\nx\nE\nc  # d\n"),
        ('x="$(a;b)c$(\nd)"y z', 'x="$(a; b)c$(\n    d)"y z\n'),
        ("case in in in) ;; esac", "case in in in) ;; esac\n"),
        ("for i in 1 2;do\na\ndone|b", "for i in 1 2; do\n    a\ndone | b\n"),
        ("a ||\nwhile b; do\nc\ndone &&\nd", "a ||\n    while b; do\n        c\n    done &&\n    d\n"),
    ],
)
def test_small_texts(text, neat):
    assert format_text(text) == neat
    assert format_text(neat) == neat


def test_what_is_no_program_has_no_layout():
    with pytest.raises(ShellSyntaxError):
        format_text("a )")
