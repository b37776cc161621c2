"""Manuals of the commands that steer a program: loops, functions, other programs, traps."""

from __future__ import annotations

from llmos_shell.shell.command import Example, Manual, Operand, Option

_STATUS = Operand("STATUS", "the exit status, 0 to 255; none: that of the last command", "int", required=False)

MANUALS = (
    Manual(
        "true",
        "do nothing, with status 0",
        synopsis=("true",),
        examples=(Example("while true; do date; break; done > now.txt", "a loop that `break` ends"),),
        exit_statuses=(("0", "always"),),
        see_also=("false", ":", "language"),
    ),
    Manual(
        "false",
        "do nothing, with status 1",
        synopsis=("false",),
        examples=(Example('false || echo "it failed"', "what comes after `||` runs", output="it failed"),),
        exit_statuses=(("1", "always"),),
        see_also=("true", "exit-statuses"),
    ),
    Manual(
        ":",
        "do nothing, with status 0, after its words were expanded",
        synopsis=(": [WORD…]",),
        description="Used for the effects of expansions and redirections, and where a command has to stand.",
        examples=(
            Example(': "${COUNT:=3}"; echo "$COUNT"', "give a variable a value unless it has one", output="3"),
            Example(": > notes.txt", "make a file empty"),
        ),
        exit_statuses=(("0", "always, unless an expansion or a redirection fails"),),
        see_also=("true", "expansion"),
    ),
    Manual(
        "break",
        "leave loops",
        synopsis=("break [N]",),
        operands=(Operand("N", "how many loops to leave, from the innermost; none: one", "count", required=False),),
        description="Works in `for`, `while` and `until` loops; elsewhere it does nothing.",
        examples=(
            Example(
                'for n in 1 2 3; do [ "$n" = 2 ] && break; echo "$n"; done', "stop before the second round", output="1"
            ),
        ),
        exit_statuses=(("0", "success"), ("2", "N is not a number from 1 up")),
        see_also=("continue", "return", "language"),
    ),
    Manual(
        "continue",
        "go on with the next round of a loop",
        synopsis=("continue [N]",),
        operands=(
            Operand("N", "go on with the Nth loop around this place; none: the innermost", "count", required=False),
        ),
        description="Works in `for`, `while` and `until` loops; elsewhere it does nothing.",
        examples=(
            Example(
                'for n in 1 2 3; do [ "$n" = 2 ] && continue; echo "$n"; done',
                "leave out the second round",
                output="1\n3",
            ),
        ),
        exit_statuses=(("0", "success"), ("2", "N is not a number from 1 up")),
        see_also=("break", "language"),
    ),
    Manual(
        "return",
        "leave a function, or a file run by `source`",
        synopsis=("return [STATUS]",),
        operands=(_STATUS,),
        examples=(
            Example(
                'even() { return $(($1 % 2)); }; even 4 && echo "4 is even"',
                "a function as a condition",
                output="4 is even",
            ),
        ),
        exit_statuses=(("STATUS", "the one given"), ("2", "STATUS is no number")),
        see_also=("exit", "source", "language"),
    ),
    Manual(
        "eval",
        "run words as a command line",
        synopsis=("eval [WORD…]",),
        operands=(Operand("WORD", "joined by spaces, then read as shell text", required=False, many=True),),
        description=(
            "The words are expanded twice: as words of `eval`, and when the text that they make is run. Never do this "
            "to text that a model or a stranger wrote."
        ),
        examples=(
            Example('name=COUNT; eval "$name=3"; echo "$COUNT"', "set a variable whose name is computed", output="3"),
        ),
        exit_statuses=(("STATUS", "that of the last command run; 0 if there was none"), ("2", "it is no shell text")),
        see_also=("source", "expansion"),
    ),
    Manual(
        "exec",
        "put a program in the place of the shell, or keep redirections",
        synopsis=("exec COMMAND [ARG…]", "exec REDIRECTION…"),
        operands=(Operand("COMMAND", "a program of the host, or a command", "command", required=False, many=True),),
        description=(
            "With COMMAND the shell ends, and the program takes its place with the same PID; no trap is run. A "
            "built-in command is run, and the shell ends with its status. Without COMMAND its redirections stay in "
            "force for the rest of the shell."
        ),
        examples=(
            Example("exec 3> log.txt; echo started >&3; exec 3>&-; cat log.txt", "a file kept open", output="started"),
            Example("exec sh -c 'exit 3'", "nothing after this is run", status=3),
        ),
        exit_statuses=(
            ("0", "redirections were kept"),
            ("126", "COMMAND cannot be run"),
            ("127", "COMMAND was not found"),
            ("STATUS", "otherwise that of COMMAND"),
        ),
        see_also=("redirection", "command"),
    ),
    Manual(
        "source",
        "run the commands of a file in this shell",
        synopsis=("source FILE [ARG…]",),
        operands=(
            Operand("FILE", "a file; a name without `/` is looked for in the folders of PATH", "file"),
            Operand("ARG", "positional parameters while it runs; none: they stay as they are", "str", False, True),
        ),
        description=(
            "What the file sets, stays set: variables, functions, the working folder. `return` leaves the file."
        ),
        examples=(
            Example(
                "echo 'greet() { echo \"hello $1\"; }' > greet.llmsh; source ./greet.llmsh; greet you",
                "functions from a file",
                output="hello you",
            ),
        ),
        exit_statuses=(("STATUS", "that of the last command run"), ("1", "FILE cannot be read")),
        see_also=(".", "exec", "scripts"),
    ),
    Manual(
        ".",
        "run the commands of a file in this shell",
        synopsis=(". FILE [ARG…]",),
        operands=(
            Operand("FILE", "a file; a name without `/` is looked for in the folders of PATH", "file"),
            Operand("ARG", "positional parameters while it runs; none: they stay as they are", "str", False, True),
        ),
        description="As `source`, except that a script ends with status 2 when FILE cannot be read, as POSIX says.",
        examples=(
            Example(
                "echo 'COUNT=3' > settings.llmsh; . ./settings.llmsh; echo \"$COUNT\"", "settings from a file", "3"
            ),
        ),
        exit_statuses=(("STATUS", "that of the last command run"), ("2", "FILE cannot be read")),
        see_also=("source", "scripts"),
    ),
    Manual(
        "trap",
        "run commands when a signal comes, or when the shell ends",
        synopsis=("trap ACTION SIGNAL…", "trap - SIGNAL…", "trap [-p [SIGNAL…]]", "trap -l"),
        options=(Option(("-p",), "print traps, as `trap` alone does"), Option(("-l",), "list the signals")),
        operands=(
            Operand("ACTION", "shell text to run; `''` ignores the signal, `-` undoes the trap"),
            Operand(
                "SIGNAL",
                "a name such as INT or TERM, a number, or EXIT (the shell ends), ERR (a command failed where `set -e` "
                "would end the shell), DEBUG (a command is about to run)",
                "signal",
                many=True,
            ),
        ),
        description=(
            "The action runs between two commands, in the shell that set it. An EXIT trap runs however the shell ends, "
            "but for `exec` and SIGKILL: it is the place to remove temporary files and to end processes. A signal with "
            "a trap ends `wait`. ERR and DEBUG are not for functions. Without operands all traps are printed in a form "
            "that can be read again."
        ),
        examples=(
            Example("trap 'echo bye' EXIT; echo working", "clean up at the end", output="working\nbye"),
            Example(
                "trap 'echo caught' USR1; kill -USR1 $$; trap - USR1", "answer a signal, then no more", output="caught"
            ),
        ),
        exit_statuses=(("0", "success"), ("1", "there is no such signal")),
        see_also=("kill", "signals", "scripts"),
    ),
    Manual(
        "times",
        "print the processor time that the shell and its programs have used",
        synopsis=("times",),
        description=(
            "The first line is the shell's: time in programs, and in the system for them. The second is that of the "
            "programs it has waited for. `time` before a pipeline says the same of that alone."
        ),
        examples=(Example("times > used.txt", "so far"),),
        exit_statuses=(("0", "success"), ("2", "misused")),
        see_also=("time",),
    ),
    Manual(
        "fc",
        "list, edit and repeat what was typed",
        synopsis=("fc [-r] [-e EDITOR] [FIRST [LAST]]", "fc -l [-nr] [FIRST [LAST]]", "fc -s [OLD=NEW] [FIRST]"),
        options=(
            Option(("-e",), "the editor; then what was written is run", "EDITOR"),
            Option(("-l",), "list instead"),
            Option(("-n",), "list without numbers"),
            Option(("-r",), "the newest first"),
            Option(("-s",), "run it at once, with OLD replaced by NEW"),
        ),
        operands=(
            Operand(
                "FIRST", "a number, a number from the end such as -2, or how it begins; none: the last", "str", False
            ),
            Operand("LAST", "the same, for more than one", "str", False),
        ),
        examples=(
            Example("fc -l -5", "the last five", untested="needs a history"),
            Example("fc -s Monday=Tuesday", "the last command, changed", untested="needs a history"),
        ),
        exit_statuses=(
            ("STATUS", "that of what was run"),
            ("1", "the history has no such entry"),
            ("2", "misused"),
        ),
        environment=(("FCEDIT", "the editor; else EDITOR"),),
        see_also=("history", "eval"),
    ),
)
