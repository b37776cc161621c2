"""The line editor on a real terminal: keys, completion, history, colours, prompts, and windows of all kinds."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from llmos_shell import paths

PROMPT = "llmos:~/work$ "


@pytest.fixture
def work(on_terminal: Any, tmp_path: Path) -> Path:
    """The folder that shells start in, with a few files."""
    folder = tmp_path / "work"
    (folder / "a folder").mkdir()
    (folder / "a folder" / "inside.txt").write_text("found\n")
    (folder / "notes.txt").write_text("one\ntwo\n")
    return folder


@pytest.fixture
def terminal(repl: Any) -> Any:
    """A shell at its first prompt."""
    started = repl()
    started.wait_prompt()
    return started


def enter(terminal: Any, line: str, shown: str) -> None:
    """Runs a line and waits for what it prints, and for the next prompt."""
    terminal.type(line + "\r")
    terminal.wait(lambda text: shown in text.rpartition(PROMPT + line)[2].partition(PROMPT.rstrip())[0])
    terminal.wait_prompt()


def write_config(name: str, text: str) -> None:
    path = Path(paths.config_dir(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# -- completion ------------------------------------------------------------------------------------------------------


def test_completion_describes_and_ends_words(terminal: Any, work: Path) -> None:
    terminal.type("ps --\t")
    terminal.wait(lambda text: "--sort KEY" in text and "as JSON" in text)
    terminal.type("\x1b")
    terminal.wait(lambda text: "--sort KEY" not in text)
    terminal.type("so\t")
    terminal.wait_prompt("ps --sort")
    terminal.type("mem\t")
    terminal.wait_prompt("ps --sort memory")
    terminal.type("| cat a\t")
    terminal.wait_prompt("ps --sort memory | cat a\\ folder/")
    terminal.type("\t\x17cat $HO\t")
    terminal.wait(lambda text: "$HOME" in text)
    terminal.type("\x03cat $HOME/work/'a f\t")
    terminal.wait_prompt("cat $HOME/work/'a folder/")
    terminal.type("\t\r")
    terminal.wait(lambda text: "'a folder/inside.txt'" in text and "\nfound\n" in text)
    terminal.wait_prompt()


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002, "pages": 4096}})
def test_completion_knows_processes_and_models(terminal: Any) -> None:
    terminal.type("run -m scr\t")
    terminal.wait_prompt("run -m scripted")
    terminal.type("a tale > tale &\r")
    terminal.wait(lambda text: "[1]" in text)
    terminal.wait_prompt()
    terminal.type("kill \t")
    terminal.wait(lambda text: "%1" in text and "running · run" in text and "scripted · run" in text)
    terminal.type("\x03kill %1\r")
    terminal.wait_prompt()


def test_a_daemon_that_hangs_holds_up_nothing(repl: Any, daemon: Any) -> None:
    terminal = repl()
    terminal.wait(lambda text: "default model scripted" in text)
    enter(terminal, "sleep 100 &", "[1]")
    enter(terminal, "sleep 101 &", "[2]")
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        terminal.type("kill \t")
        terminal.wait(lambda text: "running · sleep 100" in text)
        terminal.type("\x03load s\t")
        terminal.wait(lambda _: "load s" in terminal.line())
        terminal.type("\x03echo still here\r")
        terminal.wait(lambda text: "\nstill here" in text)
        terminal.wait_prompt()
        terminal.type("\x04\x04")
        assert terminal.status() == 1
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def test_completion_starts_no_daemon(repl: Any, daemon: Any) -> None:
    terminal = repl()
    terminal.wait(lambda text: "default model scripted" in text)
    enter(terminal, "daemon stop", "")
    terminal.wait(lambda text: "no daemon" in text)
    terminal.type("kill \t\x03load \t\x03echo done\r")
    terminal.wait(lambda text: "\ndone" in text and "no daemon" in text)
    assert daemon.process.wait(30) == 0
    assert not Path(paths.socket_path()).exists()


# -- history ---------------------------------------------------------------------------------------------------------


def test_up_goes_by_what_is_typed_and_search_runs_what_it_finds(terminal: Any) -> None:
    for line, shown in (("echo one", "one"), ("version", "llmos"), ("echo two", "two"), ("echo one", "one")):
        enter(terminal, line, shown)
    terminal.type("ec\x1b[A")
    terminal.wait_prompt("echo one")
    terminal.type("\x1b[A")
    terminal.wait_prompt("echo two")
    terminal.type("\x1b[A\x1b[A")  # there is no third
    terminal.wait_prompt("echo two")
    terminal.type("\x03\x12vers")
    terminal.wait(lambda text: "version" in text.rpartition("llmos:~")[2])
    terminal.type("\r")
    terminal.wait(lambda text: text.count("\nllmos 0") == 2)
    terminal.wait_prompt()


def test_sessions_share_the_history_while_they_run(terminal: Any, repl: Any) -> None:
    other = repl()
    other.wait_prompt()
    enter(terminal, "echo from elsewhere", "from elsewhere")
    other.type("\r")
    other.wait(lambda text: text.count("llmos:~") == 2)
    other.type("\x1b[A")
    other.wait_prompt("echo from elsewhere")
    other.type("\x03history -s else\r")
    other.wait(lambda text: "1  echo from elsewhere" in text)


def test_suggestions_are_taken_whole_or_by_words(terminal: Any) -> None:
    enter(terminal, "echo red green blue", "red green blue")
    terminal.type("ec")
    terminal.wait(lambda _: terminal.line().endswith("$ echo red green blue") and terminal.screen.cursor.x == 16)
    terminal.type("\x1bf")
    terminal.wait(lambda _: terminal.screen.cursor.x == 19)
    terminal.type("\x1b[C")
    terminal.wait(lambda _: terminal.screen.cursor.x == 33)
    terminal.type("\r")
    terminal.wait(lambda text: text.count("\nred green blue") == 2)


def test_references_to_the_history_are_shown_before_they_run(terminal: Any) -> None:
    enter(terminal, "echo one", "one")
    terminal.type("!! two\r")
    terminal.wait_prompt("echo one two")
    terminal.type("\r")
    terminal.wait(lambda text: "\none two\n" in text)
    terminal.wait_prompt()
    terminal.type("!nothing\r")
    terminal.wait(lambda text: "nothing in the history begins with `nothing`" in text)
    terminal.type("\x03echo x\x1b.\r")
    terminal.wait(lambda text: "\nxtwo" in text)


# -- control keys ----------------------------------------------------------------------------------------------------


def test_control_keys_at_a_prompt(terminal: Any) -> None:
    terminal.type("false garbage\x1a\x03")
    terminal.wait(lambda text: text.count("llmos:~") == 2)
    enter(terminal, "echo status $?", "status 130")
    terminal.type("date\x1b#")
    terminal.wait(lambda text: "#date" in text)
    enter(terminal, "echo status $?", "status 0")
    terminal.type("echo top\x0c")
    terminal.wait(lambda text: text.startswith("llmos:~/work$ echo top"))


def test_ctrl_d_warns_of_stopped_jobs_once(terminal: Any) -> None:
    terminal.type("sleep 100\r")
    terminal.wait(lambda text: "sleep 100\n" in text)
    terminal.type("\x1a")
    terminal.wait(lambda text: "Stopped" in text)
    terminal.wait_prompt()
    terminal.type("\x04")
    terminal.wait(lambda text: "there are stopped jobs" in text)
    enter(terminal, "echo not yet", "not yet")
    terminal.type("\x04")
    terminal.wait(lambda text: text.count("there are stopped jobs") == 2)
    terminal.wait_prompt()
    terminal.type("\x04")
    assert terminal.status() == 1


@pytest.mark.llmos(models={"scripted": {"end_after": 1_000_000, "step_seconds": 0.002, "pages": 4096}})
def test_ctrl_z_stops_a_generation_and_fg_goes_on(terminal: Any) -> None:
    terminal.type("run Once upon\r")
    terminal.wait(lambda text: len(text.split("Once upon")[-1]) > 200)
    terminal.type("\x1a")
    terminal.wait(lambda text: "Stopped" in text)
    terminal.wait_prompt()
    terminal.type("clear; fg\r")
    terminal.wait(lambda text: len(text) > 500)
    terminal.type("\x03")
    terminal.wait_prompt()


# -- texts of several lines, pastes, windows -------------------------------------------------------------------------


def test_a_line_goes_on_exactly_while_it_is_incomplete(terminal: Any) -> None:
    for first, last, shown in (
        ("echo 'a", "b'", "a\nb"),
        ("echo x |", "tr x y", "y"),
        ("true &&", "echo yes", "yes"),
        ("if true", "then echo then; fi", "then"),
        ("cat <<END", "text\rEND", "text"),
        ("echo a\\", "b", "ab"),
        ("f() {", "echo in f; }; f", "in f"),
        ("echo $(", "echo sub)", "sub"),
    ):
        terminal.type(first + "\r")
        terminal.wait(lambda _: terminal.line() == ">")
        terminal.type(last + "\r")
        terminal.wait(lambda text, shown=shown: f"\n{shown}\nllmos:~" in text)
        terminal.wait_prompt()
        terminal.type("clear\r")
        terminal.wait(lambda text: text.startswith("llmos:~/work$\n"))
    enter(terminal, "echo )", "unexpected `)`")


def test_a_paste_is_run_as_one_when_it_is_entered(terminal: Any) -> None:
    terminal.type("\x1b[200~for x in 1 2\ndo echo line $x\ndone\x1b[201~")
    terminal.wait(lambda text: "done" in text)
    assert "line 1" not in terminal.text()
    terminal.type("\r")
    terminal.wait(lambda text: "\nline 1\nline 2\nllmos:~" in text)
    terminal.type("\x1b[A")
    terminal.wait(lambda text: text.count("do echo line $x") == 2)


def test_wide_characters_are_edited_where_they_are(terminal: Any) -> None:
    terminal.type("echo 漢字 e\u0301 👍x")
    terminal.wait(lambda _: terminal.screen.cursor.x == 14 + len("echo ") + 4 + 1 + 1 + 1 + 2 + 1)
    terminal.type("\x1b[D\x7f\x1b[D\x1b[D\x1b[D\x1b[D\x7f")
    terminal.type("\r")
    terminal.wait(lambda text: "\n漢 e\u0301 x\n" in text.replace("漢 字", "漢字") or "\n漢" in text)
    terminal.wait_prompt()
    enter(terminal, "history 1", "  2  history 1")
    assert Path(paths.history_path()).read_text().count("+echo 漢 e\u0301 x\n") == 1


def test_the_window_may_change_and_be_tiny(repl: Any) -> None:
    terminal = repl(columns=60, lines=20)
    terminal.wait_prompt()
    terminal.type("echo 123456789 123456789")
    terminal.wait_prompt("echo 123456789 123456789")
    terminal.resize(20, 10)
    terminal.wait(lambda _: terminal.line() == "56789" or terminal.line().endswith("789"))
    terminal.type(" end\r")
    terminal.wait(lambda text: "\n123456789 123456789\nend" in text or "\n123456789 123456789 \nend" in text)
    terminal.wait_prompt()
    terminal.resize(30, 2)
    terminal.type("exit 4\r")
    assert terminal.status() == 4


def test_a_low_window_has_room_for_a_menu(repl: Any) -> None:
    terminal = repl(columns=60, lines=6)
    terminal.wait(lambda text: "no processes" in text)
    terminal.type("ps --\t")
    terminal.wait(lambda text: "--all" in text or "too small" in text)
    assert "too small" not in terminal.text()


def test_a_window_without_a_size(repl: Any) -> None:
    terminal = repl(columns=0, lines=0)
    terminal.wait_prompt()
    terminal.type("echo in the dark\r")
    terminal.wait(lambda text: "\nin the dark" in text)


def test_what_is_typed_ahead_is_kept_and_a_started_line_is_marked(terminal: Any) -> None:
    enter(terminal, "printf started", "\nstarted⏎\n")
    terminal.type("sleep 0.3\r")
    terminal.wait(lambda text: "sleep 0.3\n" in text)
    terminal.type("echo typed ahead")
    terminal.wait_prompt("echo typed ahead")


def test_a_killed_full_screen_program_leaves_the_terminal_as_it_was(terminal: Any) -> None:
    terminal.type("sh -c 'stty raw -echo; printf \"\\033[?1049h\\033[?25l\"; kill -9 $$'\r")
    terminal.wait(lambda text: "Killed" in text)
    terminal.wait_prompt()
    assert b"\x1b[?1049l" in terminal.received.rpartition(b"Killed")[0] + terminal.received.rpartition(b"Killed")[2]
    assert not terminal.screen.cursor.hidden
    enter(terminal, "stty -a | grep -o -w icanon", "icanon")


# -- keys, editor ----------------------------------------------------------------------------------------------------


def test_vi_keys(terminal: Any) -> None:
    enter(terminal, "set -o vi; set -o | grep -w vi", "on")
    terminal.type("echo one two\x1b")
    terminal.wait(lambda _: terminal.screen.cursor.x == len(PROMPT + "echo one tw"))
    terminal.type("bcwTHREE\x1b")
    terminal.wait(lambda _: terminal.screen.cursor.x == len(PROMPT + "echo one THRE"))
    terminal.type("0iprintf '%s-' \x1b")
    terminal.wait(lambda _: terminal.screen.cursor.x == len(PROMPT + "printf '%s-'"))
    terminal.type("\r")
    terminal.wait(lambda text: "\necho-one-THREE-" in text)
    terminal.wait_prompt()
    enter(terminal, "set -o emacs", "")
    terminal.type("two\x01echo \x05!\r")
    terminal.wait(lambda text: "\ntwo!" in text)


def test_the_line_is_edited_in_an_editor(repl: Any, tmp_path: Path) -> None:
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\ncase "$1" in *.llmsh) sed -i s/one/three/ "$1";; esac\n')
    script.chmod(0o755)
    terminal = repl(EDITOR=str(script))
    terminal.wait_prompt()
    terminal.type("echo one two\x18\x05")
    terminal.wait_prompt("echo three two")
    terminal.type("\r")
    terminal.wait(lambda text: "\nthree two" in text)


# -- looks -----------------------------------------------------------------------------------------------------------


def test_colours_say_what_a_word_is(terminal: Any) -> None:
    terminal.type("ps -a | nosuch 'x' $y #z")
    terminal.wait_prompt("ps -a | nosuch 'x' $y #z")
    terminal.wait(lambda _: terminal.colour("nosuch") == "red")
    assert terminal.colour("ps -a") == "green"
    assert terminal.colour("-a") == "cyan"
    assert terminal.colour("'x'") == "brown"
    assert terminal.colour("$y") == "magenta"


def test_no_color(repl: Any) -> None:
    terminal = repl(NO_COLOR="1")
    terminal.wait_prompt()
    terminal.type("nosuch 'x'")
    terminal.wait_prompt("nosuch 'x'")
    assert {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()} == {"default"}


def test_themes(terminal: Any) -> None:
    write_config("themes/own.toml", 'base = "mono"\nunknown = "ansiblue"\n')
    write_config("themes/bad.toml", 'unknown = "nocolour"\n')
    terminal.type("LLMOS_THEME=ow\t\r")
    terminal.wait(lambda text: text.count("llmos:~") == 2)
    terminal.type("nosuch")
    terminal.wait(lambda _: terminal.line().endswith("nosuch") and terminal.colour("nosuch") == "blue")
    terminal.type("\x03LLMOS_THEME=bad\r")
    terminal.wait(lambda text: "bad.toml: unknown: wrong color" in text.replace("\n", ""))
    terminal.type("LLMOS_THEME=none\r")
    terminal.wait(lambda text: "no theme `none`: there are default, light, mono" in text.replace("\n", ""))
    terminal.wait_prompt()
    terminal.type("nosuch")
    terminal.wait(lambda _: terminal.line().endswith("nosuch") and terminal.colour("nosuch") == "red")


def test_prompts_are_made_from_variables(repl: Any) -> None:
    write_config(
        "rc.llmsh",
        "PS1='\\W \\[\\e[34m\\]$(echo $((1+1)))\\[\\e[0m\\] [\\?]\\$ '; PS2='more: '; RPS1=right\n"
        "PROMPT_COMMAND='n=$((n+1))'\nnosuchcommand\nLLMOS_TOOLBAR=off\n",
    )
    terminal = repl(PS1="inherited> ")
    sign = "#" if os.geteuid() == 0 else "$"
    terminal.wait(lambda _: terminal.line().startswith(f"work 2 [0]{sign}") and terminal.line().endswith("right"))
    assert "rc.llmsh:3:nosuchcommand:commandnotfound" in "".join(terminal.text().split())
    assert "default model" not in terminal.text()
    terminal.type("false\r")
    terminal.wait(lambda _: terminal.line().startswith(f"work 2 [1]{sign}"))
    assert terminal.colour("2 [1]") == "blue"
    terminal.type("echo n=$n 'x\r")
    terminal.wait(lambda _: terminal.line() == "more:")
    terminal.type("'\r")
    terminal.wait(lambda text: "\nn=2 x" in text)


def test_a_folder_s_name_in_the_prompt_is_no_program(terminal: Any) -> None:
    terminal.type("PS1='\\w> '; mkdir '$(touch hit)'; cd '$(touch hit)'\r")
    terminal.wait(lambda _: terminal.line() == "~/work/$(touch hit)>")
    terminal.type("ls; ls ..\r")
    terminal.wait(lambda text: text.count("$(touch hit)>") == 2)
    assert "\nhit" not in terminal.text()


# -- the assistant ---------------------------------------------------------------------------------------------------


def test_a_question_mark_alone_explains_and_mends(terminal: Any) -> None:
    terminal.type("?\r")
    terminal.wait(lambda text: "Nothing has failed yet" in text)
    terminal.wait_prompt()
    enter(terminal, "vresion -v", "command not found")
    terminal.type("?\r")
    terminal.wait(lambda text: "`vresion` is no built-in command" in text)
    terminal.wait_prompt("version -v")
    terminal.type("\r")
    terminal.wait(lambda text: "python 3" in text)
    terminal.wait_prompt()
    enter(terminal, "clear; ps --srot pid", "did you mean --sort?")
    terminal.type("?\r")
    terminal.wait_prompt("clear; ps --sort pid")
    terminal.type("\x03")
    enter(terminal, "sh -c 'kill -9 $$'", "Killed")
    enter(terminal, "true", "")
    terminal.type("?\r")
    terminal.wait(lambda text: "The last line that failed: sh -c" in text)
    assert "SIGKILL" in terminal.text()


# -- no terminal to speak of -----------------------------------------------------------------------------------------


def test_a_dumb_terminal_has_history_prompts_and_proposals(repl: Any) -> None:
    write_config("rc.llmsh", "PS1='\\[\\e[1m\\]\\W> '\n")
    terminal = repl(TERM="dumb")
    terminal.wait_prompt(prompt="work>")
    terminal.type("vresion\r")
    terminal.wait(lambda text: "not found" in text)
    terminal.type("?\r")
    terminal.wait(lambda text: "\n  version\n" in text)
    terminal.wait_prompt(prompt="work>")
    terminal.type("echo 'a\r")
    terminal.wait(lambda _: terminal.line() == ">")
    terminal.type(b"b' \xff\r")
    terminal.wait(lambda text: "\na\nb" in text)
    assert "vresion" in Path(paths.history_path()).read_bytes().decode(errors="replace")
    terminal.type("\x04")
    assert terminal.status() == 0


def test_output_that_is_no_terminal_gets_no_line_editor(on_terminal: Any, daemon: Any, tmp_path: Path) -> None:
    import sys

    out = tmp_path / "out"
    terminal = on_terminal("sh", "-c", f"exec {sys.executable} -m llmos_shell > {out}")
    terminal.wait_prompt()
    terminal.type("echo to the file\r")
    terminal.wait(lambda text: text.count("llmos:~") == 2)
    terminal.type("\x04")
    assert terminal.status() == 0
    assert out.read_text() == "to the file\n"
