"""The assistant's pure part: slots out, grammar, slots in."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmos_shell.daemon.policies import POLICIES
from llmos_shell.shell.assistant import ASK, DO, candidates, finish, places, prepare, wire
from llmos_shell.shell.assistant_forms import ANSWERS, FORMS, SHOWN, UNKNOWN
from llmos_shell.shell.assistant_slots import MAX_PLACES, find_slots

MODELS = ["tiny", "llama-3.2-1b", "my-writer"]


@pytest.mark.parametrize(
    ("question", "prompt", "values"),
    [
        ("Kill process 42!", " kill process<n1>", ["42"]),
        ("renice pid=7 to minus 5", " renice pid<n1> to<n2>", ["7", "-5"]),
        ("give 30 at most 5 minutes", " give<n1> at most<n2> seconds", ["30", "300"]),
        ("fork #12 three times", " fork<n1><n2> times", ["12", "3"]),
        ("limit 3 to 1,000 tokens.", " limit<n1> to<n2> tokens", ["3", "1000"]),
        ("send SIGHUP to 9", " send<g1> to<n1>", ["HUP", "9"]),
        ("kill -9 77", " kill<g1><n1>", ["KILL", "77"]),
        ("bring %1 to the front", " bring<j1> to the front", ["%1"]),
        ("load MY-WRITER", " load<m1>", ["my-writer"]),
        ("unload qwen2.5-0.5b.gguf", " unload<m1>", ["qwen2.5-0.5b.gguf"]),
        ("load foo", " load<m1>", ["foo"]),
        ("what's in ~/notes/a b.txt", " whats in<f1><f2>", ["~/notes/a", "b.txt"]),
        ("cat 'a b.txt'", " cat<s1>", ["a b.txt"]),
        ("run “hello world” with tiny", " run<s1> with<m1>", ["hello world", "tiny"]),
        ("run this: tell me a joke", " run this<s1>", ["tell me a joke"]),
        ("please ask the model to write a haiku", " please ask the model to<s1>", ["write a haiku"]),
        ("at temperature 0.7", " at temperature<n1>", ["0.7"]),
        ("go to the docs folder", " go to the<f1> folder", ["docs"]),
        ("go to the parent folder", " go to the parent folder", []),
        ('"kill process 42"', " kill process<n1>", ["42"]),
        ("'run \"a b\"'", " run<s1>", ["a b"]),
        ("how do I load a model", " how do i load a model", []),
        ("how do I pause a process?", " how do i pause a process", []),
    ],
)
def test_prompt_has_places_for_what_is_copied(question: str, prompt: str, values: list[str]) -> None:
    prepared = prepare(question, MODELS)
    assert prepared.prompt == f"{ASK}{prompt}{DO}"
    assert [slot.value for slot in prepared.slots] == values


@pytest.mark.parametrize(
    ("question", "completion", "line"),
    [
        ("kill process 42", "$ kill<n1>", "kill 42"),
        ("renice 7 to -5", "$ renice<n2><n1>", "renice -5 7"),
        ("bring job 2 to the front", "$ fg<j1>", "fg %2"),
        ("kill job number 3", "$ kill<j1>", "kill %3"),
        ("bring %2 to the front", "$ fg<j1>", "fg %2"),
        ("send sigint to 8", "$ kill -<g1><n1>", "kill -INT 8"),
        ('do "say hi" in the background', "$ run<s1> &", 'run "say hi" &'),
        ("do 'cost: $5 \"now\"' in the background", "$ run<s1> &", "run 'cost: $5 \"now\"' &"),
        ('save "x y" to ~/a.txt', "$ run<s1> ><f1>", 'run "x y" > ~/a.txt'),
    ],
)
def test_completion_becomes_a_command_line(question: str, completion: str, line: str) -> None:
    proposal = finish(prepare(question, MODELS), completion)
    assert (proposal.kind, proposal.text) == ("command", line)


@pytest.mark.parametrize("completion", ["$ rm -rf", "$ kill", "$ kill<n2>", "kill 42", "", "$", UNKNOWN, "$ kill<n1> "])
def test_what_is_no_command_line_is_unknown(completion: str) -> None:
    proposal = finish(prepare("kill process 42"), completion)
    assert proposal.kind == ("command" if completion == "$ kill<n1> " else "unknown")


def test_answers_are_answers() -> None:
    proposal = finish(prepare("how do I pause a process"), " " + ANSWERS["stop"])
    assert (proposal.kind, proposal.text) == ("answer", ANSWERS["stop"])


@pytest.mark.parametrize(
    ("question", "completion", "destructive"),
    [
        ("kill 1", "$ kill<n1>", True),
        ("kill 1", "$ kill -KILL<n1>", True),
        ("stop 1", "$ stop<n1>", False),
        ('"a" to b.txt', "$ run<s1> ><f1>", True),
        ('"a" on b.txt', "$ run<s1> <<f1>", False),
    ],
)
def test_destructive_proposals_are_flagged(question: str, completion: str, destructive: bool) -> None:
    assert finish(prepare(question), completion).destructive is destructive


@pytest.mark.parametrize("form", FORMS)
def test_wire_form_is_reversible(form: str) -> None:
    assert len({wire(other) for other in FORMS}) == len(FORMS)
    assert places(form) == places(wire(form))


def test_grammar_admits_only_forms_with_the_slots_that_are_there() -> None:
    assert "$ kill<n1>" not in candidates(())
    assert set(candidates(())) >= {"$ ps", ANSWERS["stop"]}
    assert "$ kill<n1>" in candidates(find_slots("kill 42"))
    named = candidates(find_slots('run "a" into b.txt'))
    assert set(named) == {"$ run<s1> <<f1>", "$ run<s1> ><f1>", UNKNOWN}


@example("put 42 to 'sleep' for 5 minutes")
@given(st.text())
def test_slots_are_disjoint_spans_of_the_question(question: str) -> None:
    slots = find_slots(question, MODELS)
    ends = [0, *(end for slot in slots for end in (slot.start, slot.end)), len(question)]
    assert ends == sorted(ends)
    pieces = [question[start:end] for start, end in pairwise(ends)]
    assert "".join(pieces) == question
    assert all(slot.value and slot.number <= MAX_PLACES for slot in slots)


@given(st.text(alphabet=st.characters(blacklist_characters='"“”«»', blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_quoted_text_survives_the_shell(text: str) -> None:
    prepared = prepare(f'run "{text}"', [])
    if [slot.kind for slot in prepared.slots] == ["s"]:
        line = finish(prepared, "$ run<s1>").text
        assert shlex.split(line) == ["run", text]


@given(st.text())
def test_prompt_never_contains_places_typed_by_the_user(question: str) -> None:
    prepared = prepare(question + " <n1> <do>", [])
    inner = prepared.prompt[len(ASK) : -len(DO)]
    assert inner.count("<") == len(prepared.slots)


def test_the_answer_about_policies_names_those_that_are_built_in() -> None:
    assert set(SHOWN) <= set(ANSWERS.values())
    assert all(name in SHOWN[ANSWERS["sched"]] for name in POLICIES)
