"""The chat template that can go on from a conversation that has begun, rendered as vLLM does: by the tokenizer, in one go."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.engines._continuation_template import continuation_template
from foreword.engines._conversation import ConversationEncoder
from foreword.types import Message
from tiny_models import FAMILIES, build_tokenizer

CONVERSATIONS = [
    (Message(role="user", content="Hi"),),
    (
        Message(role="user", content="  Where is my order 4711?\n"),
        Message(role="assistant", content="On its way."),
        Message(role="user", content="漢 🙂"),
    ),
]
WITH_SYSTEM = (Message(role="system", content="Answer briefly."), Message(role="user", content="Hi"))

MACROS = """{%- macro turn(role, text) -%}
<|im_start|>{{ role }}
{{ text | trim }}{% if not last %}<|im_end|>
{% endif %}
{%- endmacro %}
{%- set ns = namespace(seen=0) -%}
  {% if messages[0].role != 'system' %}{{ turn('system', 'By default.') }}{% endif %}
{%- for message in messages %}
    {%- set ns.seen = ns.seen + 1 %}
    {{- turn(message.role, message.content) }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def ids(tokenizer: Any, template: str, conversation: tuple[Message, ...], **variables: Any) -> list[int]:
    """As vLLM renders a request."""
    turns = [{"role": message.role, "content": message.content} for message in conversation]
    return tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=True, add_generation_prompt=True, return_dict=False, **variables
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_continuation_has_the_tokens_that_this_process_would_use(family):
    tokenizer = build_tokenizer(family)
    made = continuation_template(tokenizer, str(tokenizer.chat_template))
    assert made is not None
    encoder = ConversationEncoder(tokenizer)
    for conversation in CONVERSATIONS:
        assert tuple(ids(tokenizer, made, conversation, foreword_continuation=True)) == encoder.prompt(conversation, "continuation")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variables", [{}, {"foreword_continuation": False}])
def test_without_the_variable_nothing_changes(family, variables):
    tokenizer = build_tokenizer(family)
    template = str(tokenizer.chat_template)
    made = continuation_template(tokenizer, template)
    assert made is not None
    for conversation in (*CONVERSATIONS, WITH_SYSTEM):
        assert ids(tokenizer, made, conversation, **variables) == ids(tokenizer, template, conversation)


@pytest.mark.parametrize("template", [MACROS, REFUSES_SYSTEM, "  {% if true %}x{% endif %}\n" + REFUSES_SYSTEM, "\n" + MACROS + "\n"])
def test_templates_with_macros_blanks_and_opinions_work_too(template):
    tokenizer = build_tokenizer("qwen3")
    made = continuation_template(tokenizer, template)
    assert made is not None
    tokenizer.chat_template = template
    encoder = ConversationEncoder(tokenizer)
    for conversation in CONVERSATIONS:
        assert tuple(ids(tokenizer, made, conversation, foreword_continuation=True)) == encoder.prompt(conversation, "continuation")
        assert ids(tokenizer, made, conversation) == ids(tokenizer, template, conversation)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
        "{{ messages[-1].content }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_template_that_cannot_be_continued_gives_none(template):
    assert continuation_template(build_tokenizer("qwen3"), template) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_message_that_holds_the_stand_ins_own_text_is_whole(family):
    tokenizer = build_tokenizer(family)
    made = continuation_template(tokenizer, str(tokenizer.chat_template))
    assert made is not None

    def text(content: str) -> str:
        rendered = ids(tokenizer, made, (Message(role="user", content=content),), foreword_continuation=True)
        return tokenizer.decode(rendered, clean_up_tokenization_spaces=False)

    assert text("What does 0f0r3w0rd mean? 0f0r3w0rd") == text("Hi").replace("Hi", "What does 0f0r3w0rd mean? 0f0r3w0rd")


def test_a_start_that_depends_on_what_follows_is_refused_and_not_cut_wrongly():
    tokenizer = build_tokenizer("qwen3")
    template = (
        "{% for m in messages %}{{ m.content }}{% if loop.first and messages[-1].content == 'odd' %}!{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    made = continuation_template(tokenizer, template)
    assert made is not None
    assert ids(tokenizer, made, (Message(role="user", content="even"),), foreword_continuation=True)
    with pytest.raises(Exception, match="cannot go on from a prefix"):
        ids(tokenizer, made, (Message(role="user", content="odd"),), foreword_continuation=True)


@pytest.mark.slow
def test_the_default_models_continuation_has_the_tokens_of_the_embedded_engine(smollm2):
    engine = smollm2.engine
    made = continuation_template(engine.tokenizer, engine.tokenizer.chat_template)
    assert made is not None
    for conversation in (*CONVERSATIONS, WITH_SYSTEM):
        rendered = tuple(ids(engine.tokenizer, made, conversation, foreword_continuation=True))
        assert rendered == engine.render(conversation, prompt_format="continuation")
        assert tuple(ids(engine.tokenizer, made, conversation)) == engine.render(conversation)
