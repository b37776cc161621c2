"""Manuals of the commands on what words mean, and on the folder and files of the shell."""

from __future__ import annotations

from llmos_shell.shell.command import Example, Manual, Operand, Option

MANUALS = (
    Manual(
        "cd",
        "change the working folder",
        synopsis=("cd [-L | -P] [FOLDER]", "cd -"),
        options=(
            Option(("-L",), "`..` undoes the last step, also through a symbolic link; so it is at first"),
            Option(("-P",), "follow symbolic links, so that `pwd` shows where the folder really is"),
        ),
        operands=(Operand("FOLDER", "where to; none: home; `-`: where you were before", "file", required=False),),
        description="It changes the folder of the shell, and so where programs and files of later commands are.",
        examples=(
            Example("cd /tmp; pwd", "go somewhere", output="/tmp"),
            Example("cd / && cd - > there.txt", "and back again"),
        ),
        exit_statuses=(("0", "success"), ("1", "there is no such folder, or you may not enter"), ("2", "misused")),
        environment=(
            ("HOME", "where `cd` alone goes"),
            ("PWD", "this folder"),
            ("OLDPWD", "the one before"),
            ("CDPATH", "folders, with `:` between them, in which a FOLDER without `./` or `/` before it is looked for"),
        ),
        see_also=("pwd",),
    ),
    Manual(
        "pwd",
        "print the working folder",
        synopsis=("pwd [-L | -P]",),
        options=(
            Option(("-L",), "as it was reached, symbolic links included; so it is at first"),
            Option(("-P",), "without symbolic links"),
        ),
        examples=(Example("(cd / && pwd)", "of a subshell", output="/"),),
        exit_statuses=(("0", "success"), ("1", "the folder is gone")),
        see_also=("cd",),
    ),
    Manual(
        "umask",
        "show or set which permissions new files do not get",
        synopsis=("umask [-S] [MODE]",),
        options=(Option(("-S",), "show it in letters: what new files get"),),
        operands=(
            Operand("MODE", "octal digits, such as 022, or letters, such as u=rwx,g-w; none: show it", required=False),
        ),
        examples=(
            Example("umask 077; umask", "new files are for you alone", output="0077"),
            Example("umask 022; umask g+w,o=; umask -S", "what others get", output="u=rwx,g=rwx,o="),
        ),
        exit_statuses=(("0", "success"), ("2", "MODE is no mask")),
        see_also=("set",),
    ),
    Manual(
        "alias",
        "let a word stand for a text, or show what words stand for",
        synopsis=("alias [NAME[=TEXT]…]",),
        operands=(
            Operand("NAME", "with `=TEXT`: set it; without: show it; none: show all", required=False, many=True),
        ),
        description=(
            "The word is replaced where a command's name stands, before the line is read; so an alias works from the "
            "next line on. A function can do more, and takes arguments. `rc.llmsh` is the place for aliases to stay."
        ),
        examples=(
            Example("alias top5='ps --sort tokens | head -n 5'", "a shorter word"),
            Example("alias ll='ls -l'; alias ll", "what does it stand for?", output="ll='ls -l'"),
        ),
        exit_statuses=(("0", "success"), ("1", "there is no such alias")),
        see_also=("unalias", "type", "configuration"),
    ),
    Manual(
        "unalias",
        "forget aliases",
        synopsis=("unalias NAME…", "unalias -a"),
        options=(Option(("-a",), "all of them"),),
        operands=(Operand("NAME", "aliases", required=False, many=True),),
        examples=(Example("alias ll='ls -l'; unalias ll; alias", "none is left"),),
        exit_statuses=(("0", "success"), ("1", "there is no such alias")),
        see_also=("alias",),
    ),
    Manual(
        "command",
        "run a command even if a function has its name, or say what a name stands for",
        synopsis=("command [-p] COMMAND [ARG…]", "command -v NAME…", "command -V NAME…"),
        options=(
            Option(("-p",), "the program of the host, where a command of this shell has its name"),
            Option(("-v",), "print the path, the alias or the name of each NAME that can be run"),
            Option(("-V",), "the same in words, as `type` does"),
        ),
        operands=(Operand("COMMAND", "a command and its arguments", "command", required=False, many=True),),
        examples=(
            Example('command -v sh > /dev/null && echo "there is a sh"', "is a program there?", "there is a sh"),
            Example("command -p ps > host.txt", "the host's processes"),
            Example('cd() { command cd "$@" && pwd; }; cd /', "a function that calls what it hides", output="/"),
        ),
        exit_statuses=(
            ("STATUS", "that of COMMAND"),
            ("0", "with `-v`: every NAME can be run"),
            ("127", "COMMAND or a NAME was not found"),
        ),
        see_also=("type", "hash"),
    ),
    Manual(
        "type",
        "say what words mean as commands",
        synopsis=("type [-a | -t | -p] NAME…",),
        options=(
            Option(("-t",), "in one word: alias, keyword, function, builtin or file"),
            Option(("-a",), "all that the word could mean, the first as it does"),
            Option(("-p",), "only where programs are"),
        ),
        operands=(Operand("NAME", "words", "command", many=True),),
        examples=(
            Example("type cd ps", "both are built in", output="cd is a shell builtin\nps is a shell builtin"),
            Example("type -t if", "part of the grammar", output="keyword"),
        ),
        exit_statuses=(("0", "all were found"), ("1", "one was not")),
        see_also=("command", "man"),
    ),
    Manual(
        "hash",
        "show or forget where programs were found, or find some",
        synopsis=("hash", "hash -r", "hash NAME…"),
        options=(Option(("-r",), "forget; programs are looked up anew"),),
        operands=(Operand("NAME", "programs to look up", "command", required=False, many=True),),
        examples=(Example("hash -r", "after a program was installed elsewhere"), Example("hash sh", "is it there?")),
        exit_statuses=(("0", "success"), ("1", "a NAME was not found")),
        see_also=("command", "type"),
    ),
)
