from __future__ import annotations

import pytest

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message
from llmos_shell.abi.worker import Load, Tokenize
from llmos_shell.engine.templates import ChatTemplate, answer, render_plain, tokens_for
from llmos_shell.testing.scripted import ScriptedEngine, load

CHAT = (Message("system", "be brief"), Message("user", "hi"), Message("assistant", " hello "), Message("user", "bye"))
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_plain_form() -> None:
    assert render_plain(CHAT, True) == "be brief\n\nUser: hi\nAssistant: hello\nUser: bye\nAssistant:"
    assert render_plain(CHAT[:3], False) == "be brief\n\nUser: hi\nAssistant: hello"
    with pytest.raises(LlmosError):
        render_plain([Message("ghost", "boo")], True)


def test_templates_of_files() -> None:
    template = ChatTemplate("{{ bos_token }}" + CHATML, "<s>", "</s>")
    assert template.render(CHAT[1:2], True) == "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert ChatTemplate("{{ bos_token }}x", "<s>", "", strip_bos=True).render(CHAT, False) == "x"


def test_what_templates_expect_is_there() -> None:
    source = "{{ messages | tojson }} {{ strftime_now('%Y') | length }}{% for x in [1, 2] %}{% break %}{% endfor %}"
    assert ChatTemplate(source).render([Message("user", "é")], False) == '[{"role": "user", "content": "é"}] 4'


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ nothing.at.all }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_templates_that_refuse_are_user_errors(source: str) -> None:
    with pytest.raises(LlmosError) as caught:
        ChatTemplate(source).render(CHAT, True)
    assert caught.value.code == Code.EINVAL


def test_broken_templates_are_refused_at_once() -> None:
    with pytest.raises(LlmosError):
        ChatTemplate("{% if %}")


class Trimming(ScriptedEngine):
    """Renders as templates do that rewrite earlier turns."""

    template = ChatTemplate("{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}[assistant]")

    def render(self, messages: object, generate: bool) -> str:
        return self.template.render(messages, generate).replace("hello", "" if generate else "hello")  # type: ignore[arg-type]


@pytest.fixture
def engine() -> ScriptedEngine:
    return load(Load(PROTOCOL, "scripted:"))


def test_whole_conversations_begin_with_bos(engine: ScriptedEngine) -> None:
    tokens, whole = tokens_for(engine, Tokenize(1, messages=CHAT))
    assert tokens == engine.tokenize(engine.render(CHAT, True), True) and not whole


def test_known_part_and_rest_make_the_whole(engine: ScriptedEngine) -> None:
    before = engine.tokenize(engine.render(CHAT[:2], True), True)
    rest, whole = tokens_for(engine, Tokenize(1, messages=CHAT, known=3))
    assert not whole
    assert [*before, *engine.tokenize(" hello ", False), *rest] == engine.tokenize(engine.render(CHAT, True), True)


def test_rewriting_templates_give_the_whole() -> None:
    engine = Trimming(Load(PROTOCOL, "scripted:"))
    tokens, whole = tokens_for(engine, Tokenize(1, messages=CHAT, known=3))
    assert whole and tokens == engine.tokenize(engine.render(CHAT, True), True)


def test_plain_text(engine: ScriptedEngine) -> None:
    assert tokens_for(engine, Tokenize(1, text="a", special=False)) == ([97], False)
    assert tokens_for(engine, Tokenize(1, text="a")) == ([256, 97], False)


@pytest.mark.parametrize("request_", [Tokenize(1), Tokenize(1, messages=CHAT, known=5), Tokenize(1, messages=())])
def test_senseless_requests(engine: ScriptedEngine, request_: Tokenize) -> None:
    with pytest.raises(LlmosError):
        tokens_for(engine, request_)
    refused = answer(engine, request_)
    assert refused.id == 1 and refused.error and not refused.tokens
