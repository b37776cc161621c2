"""Prompts that are broken off: nobody who wakes them comes too early."""

from __future__ import annotations

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from llmos_shell.shell.interactive.lineedit import BrokenOff, EditingReader


def test_a_prompt_begun_after_it_was_woken_is_broken_off_and_keeps_what_was_typed():
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        reader = EditingReader()
        reader.wake()
        with pytest.raises(BrokenOff) as broken:
            reader.read("half a thou", lambda: True)
        assert broken.value.typed == "half a thou"
        keyboard.send_text("ght\r")
        assert reader.read(broken.value.typed, lambda: False) == "half a thought"
