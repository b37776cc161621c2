"""Manuals of the commands on variables, parameters and options of the shell."""

from __future__ import annotations

from llmos_shell.shell.command import Example, Manual, Operand, Option

_ASSIGNMENT = Operand("NAME", "a variable; with `=VALUE` it is set first", "variable", required=False, many=True)
_PRINT = Option(("-p",), "print them, in a form that can be read again; so does no NAME")
_NAMES = (("0", "success"), ("2", "a NAME is no variable's name, or cannot be changed"))

_ATTRIBUTES = (
    Option(("-a",), "an array"),
    Option(("-A",), "an array with texts as keys"),
    Option(("-i",), "values are arithmetic"),
    Option(("-l", "-u"), "values become lower case, or upper case"),
    Option(("-r",), "read-only"),
    Option(("-x",), "exported"),
    Option(("-g",), "in a function: not local"),
    Option(("-p",), "print the declaration; of all variables when no NAME is given"),
    Option(("-f", "-F"), "functions: print them, or only their names"),
)


def _declare(name: str) -> Manual:
    return Manual(
        name,
        "declare variables with attributes, or show declarations",
        synopsis=(f"{name} [-aAgilrux] NAME[=VALUE]…", f"{name} -p [NAME…]", f"{name} -f|-F [NAME…]"),
        options=_ATTRIBUTES,
        operands=(Operand("NAME", "a variable; `=VALUE` or `=(…)` sets it", "variable", required=False, many=True),),
        description=(
            "In a function the variables are local unless `-g` is given. `+` in the place of `-` takes attributes "
            "away, but that of being read-only."
        ),
        examples=(
            Example(
                f'{name} -A size=([small]=1 [large]=9); echo "${{size[large]}}"', "an array with texts as keys", "9"
            ),
            Example(f"{name} -i n=2+3; {name} -p n", "arithmetic", output='declare -i n="5"'),
        ),
        exit_statuses=(("0", "success"), ("1", "a NAME is not set or no name"), ("2", "there is no such option")),
        see_also=("local", "export", "readonly", "expansion"),
    )


def _mapfile(name: str) -> Manual:
    return Manual(
        name,
        "read lines into an array",
        synopsis=(f"{name} [-t] [-d CHAR] [-n N] [-O N] [-s N] [-u N] [ARRAY]",),
        options=(
            Option(("-t",), "without their ends"),
            Option(("-d",), "lines end with this character; `''` is the NUL character", "CHAR"),
            Option(("-n",), "at most so many lines; 0: all", "N"),
            Option(("-O",), "the first goes into this element, and others are kept", "N"),
            Option(("-s",), "skip so many lines first", "N"),
            Option(("-u",), "read from this descriptor", "N"),
        ),
        operands=(Operand("ARRAY", "its name; none: `MAPFILE`", "variable", required=False),),
        examples=(
            Example(
                f'{name} -t lines < questions.txt; echo "${{#lines[@]}}: ${{lines[1]}}"',
                "a file as an array",
                output="2: how do I list models",
            ),
        ),
        exit_statuses=(("0", "success"), ("2", "it was called wrongly")),
        see_also=("read", "declare"),
    )


MANUALS = (
    Manual(
        "export",
        "hand variables to the programs that are run",
        synopsis=("export [-n] NAME[=VALUE]…", "export [-p]"),
        options=(Option(("-n",), "no longer hand them on"), _PRINT),
        operands=(_ASSIGNMENT,),
        examples=(Example("export GREETING=hello; sh -c 'echo \"$GREETING\"'", "a program sees it", output="hello"),),
        exit_statuses=_NAMES,
        see_also=("readonly", "unset", "set"),
    ),
    Manual(
        "readonly",
        "keep variables from being changed",
        synopsis=("readonly NAME[=VALUE]…", "readonly [-p]"),
        options=(_PRINT,),
        operands=(_ASSIGNMENT,),
        examples=(Example('readonly LIMIT=5; echo "$LIMIT"', "a constant", output="5"),),
        exit_statuses=_NAMES,
        see_also=("export", "unset"),
    ),
    Manual(
        "local",
        "make variables of the present function",
        synopsis=("local NAME[=VALUE]…",),
        operands=(_ASSIGNMENT,),
        description="They are gone when the function returns, and what they hid is back. Functions called see them.",
        examples=(
            Example('f() { local n=2; echo "$n"; }; n=1; f; echo "$n"', "the outer variable is safe", output="2\n1"),
        ),
        exit_statuses=(("0", "success"), ("2", "not in a function, or a NAME is no variable's name")),
        see_also=("return", "language"),
    ),
    Manual(
        "unset",
        "forget variables, elements of arrays, or functions",
        synopsis=("unset [-v] NAME…", "unset 'NAME[INDEX]'", "unset -f NAME…"),
        options=(
            Option(("-f",), "functions"),
            Option(("-v",), "variables; without an option, a function where there is no such variable"),
        ),
        operands=(Operand("NAME", "what to forget; one that is not set is no error", "variable", many=True),),
        examples=(Example('x=1; unset x; echo "${x-not set}"', "as if it had never been set", output="not set"),),
        exit_statuses=(("0", "success"), ("2", "a NAME is no variable's name, or must not be changed")),
        see_also=("export", "local"),
    ),
    Manual(
        "set",
        "change options of the shell, and its positional parameters",
        synopsis=("set [-abCefmnuvx] [-o OPTION] [--] [WORD…]", "set +x", "set -o", "set"),
        options=(
            Option(("-a",), "export every variable that is set from now on (allexport)"),
            Option(("-b",), "accepted; ends of jobs are reported before the next prompt (notify)"),
            Option(("-C",), "`>` overwrites no file; `>|` does (noclobber)"),
            Option(("-e",), "leave the shell when a command fails that is not part of a condition (errexit)"),
            Option(("-f",), "no pathname expansion (noglob)"),
            Option(("-m",), "accepted; job control is on in interactive shells (monitor)"),
            Option(("-n",), "read commands and run none (noexec)"),
            Option(("-u",), "a variable that is not set is an error (nounset)"),
            Option(("-v",), "write a program's text on standard error before it is run (verbose)"),
            Option(("-x",), "write each command on standard error before it is run (xtrace)"),
            Option(
                ("-o",),
                "an option by its name; without one, show all. No letter have `pipefail` (the last part of a pipeline "
                "that fails gives its status), `vi` and `emacs` (the keys of the line editor)",
                "OPTION",
            ),
        ),
        operands=(Operand("WORD", "the new positional parameters `$1`, `$2` …", required=False, many=True),),
        description=(
            "`+` in the place of `-` turns an option off. `--` ends the options; `set --` alone leaves no parameters. "
            "Without any word all variables are printed in a form that can be read again."
        ),
        examples=(
            Example("set -euo pipefail", "how careful scripts begin"),
            Example('set -- one "two three"; echo "$# $2"', "new positional parameters", output="2 two three"),
            Example("set -x; echo hi; set +x", "show what is run", output="hi"),
        ),
        exit_statuses=(("0", "success"), ("2", "there is no such option")),
        see_also=("shift", "scripts", "exit-statuses"),
    ),
    Manual(
        "shift",
        "drop the first positional parameters",
        synopsis=("shift [N]",),
        operands=(Operand("N", "how many; none: one", "count", required=False),),
        examples=(Example('set -- a b c; shift; echo "$1 $#"', "`$2` becomes `$1`", output="b 2"),),
        exit_statuses=(("0", "success"), ("2", "there are not so many, or N is no number")),
        see_also=("set", "getopts"),
    ),
    Manual(
        "getopts",
        "read the options of a script one by one",
        synopsis=("getopts OPTIONS NAME [ARG…]",),
        operands=(
            Operand("OPTIONS", "the letters there are; a `:` after one says that it takes a value"),
            Operand("NAME", "the variable that gets the letter, `?` for one that is unknown", "variable"),
            Operand("ARG", "what to read; none: the positional parameters", required=False, many=True),
        ),
        description=(
            "Each call takes the next option: its letter goes into NAME, its value into `OPTARG`. `OPTIND` is the "
            "number of the next parameter; `shift $((OPTIND - 1))` drops all options afterwards, and `OPTIND=1` begins "
            "anew. When OPTIONS begins with `:`, nothing is written about mistakes: NAME is `?` (unknown) or `:` (its "
            "value is missing), and `OPTARG` the letter."
        ),
        examples=(
            Example(
                'set -- -n 3 file; while getopts n: option; do echo "$option=$OPTARG"; done; shift $((OPTIND - 1)); '
                'echo "$1"',
                "an option with a value, then an operand",
                output="n=3\nfile",
            ),
        ),
        exit_statuses=(("0", "an option was read, known or not"), ("1", "there are no more options"), ("2", "misused")),
        environment=(("OPTIND", "number of the parameter to look at next"), ("OPTARG", "value of the option")),
        see_also=("shift", "set", "scripts"),
    ),
    Manual(
        "read",
        "read a line of standard input into variables, or its fields into an array",
        synopsis=("read [OPTION…] [NAME…]", "read [OPTION…] -a ARRAY"),
        options=(
            Option(("-r",), "leave backslashes alone; nearly always what is wanted"),
            Option(("-a",), "all fields into the elements of an array", "ARRAY"),
            Option(("-p",), "write this first, if standard input is a terminal", "TEXT"),
            Option(("-s",), "show nothing of what is typed, as for a password"),
            Option(("-d",), "read up to this character instead of the line's end; `''` is the NUL character", "CHAR"),
            Option(("-n",), "read at most so many characters", "N"),
            Option(("-N",), "read exactly so many characters, line ends included, and do not split them", "N"),
            Option(("-t",), "give up after so long; 0 asks only whether there is something to read", "SECONDS"),
            Option(("-u",), "read from this descriptor", "N"),
        ),
        operands=(
            Operand(
                "NAME",
                "variables for the fields of the line; the last gets the rest. None: the whole line goes into `REPLY`",
                "variable",
                required=False,
                many=True,
            ),
        ),
        description=(
            "The line is split at the characters of `IFS`; `IFS=` before the command keeps leading and trailing "
            "spaces. Nothing beyond the line is read, so that the next command finds the rest. Without `-r` a "
            "backslash protects the character after it, and a line may go on in the next."
        ),
        examples=(
            Example(
                "printf 'one two three\\n' | { read -r first rest; echo \"$rest\"; }",
                "the first word, and the others",
                output="two three",
            ),
            Example(
                'while IFS= read -r line; do echo "> $line"; done < quote.txt',
                "a file line by line, exactly",
                before="printf 'a\\n  b\\n' > quote.txt",
                output="> a\n>   b",
            ),
        ),
        exit_statuses=(
            ("0", "a whole line was read"),
            ("1", "the input ended first"),
            ("2", "it was called wrongly"),
            ("142", "the time of `-t` ran out"),
        ),
        environment=(("IFS", "the characters that separate fields; at first space, tab and line end"),),
        see_also=("mapfile", "printf", "language"),
    ),
    *(_mapfile(name) for name in ("mapfile", "readarray")),
    *(_declare(name) for name in ("declare", "typeset")),
    Manual(
        "let",
        "calculate",
        synopsis=("let EXPRESSION…",),
        operands=(
            Operand("EXPRESSION", "arithmetic, as in `$((…))`; quote signs that mean something else", many=True),
        ),
        description="The same as `((EXPRESSION))`, with a word for each expression.",
        examples=(Example('let "n = 6 * 7"; echo "$n"', "into a variable", output="42"),),
        exit_statuses=(("0", "the last value is not 0"), ("1", "it is 0, or no arithmetic"), ("2", "no EXPRESSION")),
        see_also=("expansion", "test"),
    ),
)
