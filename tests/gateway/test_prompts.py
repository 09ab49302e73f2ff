"""Stored prompts by name through OpenAI's own client: what they come to, who knows of which, and what cannot be asked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.gateway.prompts import HEADER
from foreword.gateway.tenants import parse_keys
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import StandsFor
from foreword.prefix.stands_for import messages_hash
from foreword.prompting.store import PromptStore
from foreword.prompting.template import Template, build

HELLO: Any = [{"role": "user", "content": "hello there friend"}]
RULES = {"role": "system", "content": "be kind"}
QUESTION = {"role": "user", "content": "{{ name }} asks {{ question }}"}
SHOTS = [{"user": "is it open", "assistant": "yes it is"}, {"user": "is it far", "assistant": "not very"}]


def template(name: str, *messages: dict[str, str], **fields: Any) -> Template:
    return build({"name": name, "messages": list(messages), **fields}, source="test")


@pytest.fixture
def prompts(tmp_path: Path) -> PromptStore:
    """`desk` (two versions, `prod` is the first), `rules`, `shots`, and those of hostile or clumsy authors."""
    store = PromptStore(tmp_path / "prompts")
    store.publish(template("desk", RULES, QUESTION, variables={"name": "somebody"}))
    store.publish(template("desk", {"role": "system", "content": "be brief"}, QUESTION))
    store.alias("desk", "prod", 1)
    store.publish(template("rules", RULES))
    store.publish(template("shots", RULES, QUESTION, examples=SHOTS, variables={"name": "somebody"}))
    store.publish(template("loop", {"role": "user", "content": "{% for i in range(n) %}{% for j in range(n) %}x{% endfor %}{% endfor %}"}))
    store.publish(template("many", {"role": "user", "content": "{% for i in range(2000) %}{{ text }}{% endfor %}"}))
    return store


@pytest.fixture
def ask(start: Any, prompts: PromptStore) -> Any:
    """`ask("desk@prod", messages, question=...)`: the answer, and what its header says."""
    client = start(prompts=prompts).client()

    def asked(ref: str, messages: Any = (), *, model: str = "echo", version: str | None = None, **variables: Any) -> tuple[Any, str]:
        prompt: dict[str, Any] = {"id": ref, "variables": variables} | ({} if version is None else {"version": version})
        raw = client.chat.completions.with_raw_response.create(model=model, messages=list(messages), extra_body={"prompt": prompt})
        return raw.parse(), raw.headers[HEADER]

    yield asked
    client.close()


def test_a_prompt_that_ends_with_the_user(ask: Any):
    answer, header = ask("desk@prod", question="why")
    assert header == "desk@v1" and answer.choices[0].message.content == "somebody asks why" and answer.usage.prompt_tokens == 2 + 3


@pytest.mark.parametrize(("ref", "version"), [("desk", None), ("desk@v2", None), ("desk", "2"), ("desk", "v2"), ("desk", "latest")])
def test_versions(ask: Any, ref: str, version: str | None):
    answer, header = ask(ref, name="Lea", question="why", version=version)
    assert header == "desk@v2" and answer.choices[0].message.content == "Lea asks why"
    assert ask("desk", question="why", version="prod")[1] == "desk@v1"


def test_messages_come_after_it(ask: Any):
    answer, _ = ask("rules", HELLO, model="echo:support")
    assert answer.choices[0].message.content == "[support] hello there friend" and answer.usage.prompt_tokens == 2 + 3
    answer, _ = ask("desk@prod", [{"role": "assistant", "content": "go on"}, *HELLO], question="why")
    assert answer.choices[0].message.content == "hello there friend" and answer.usage.prompt_tokens == 2 + 3 + 2 + 3


def test_examples_are_turns(ask: Any):
    assert ask("shots", question="why")[0].usage.prompt_tokens == 2 + (3 + 3) + (3 + 2) + 3


def test_with_a_strategy_examples_are_what_it_shows(ask: Any):
    answer, header = ask("shots", model="strategy:few-shot(echo, k=1)", question="why")
    assert header == "shots@v1" and answer.choices[0].message.content == "somebody asks why"
    assert answer.usage.prompt_tokens == 2 + (3 + 3) + 3
    assert ask("shots", model="strategy:zero-shot(echo)", question="why")[0].usage.prompt_tokens == 2 + 3


def test_streams_have_the_header(start: Any, prompts: PromptStore):
    with start(prompts=prompts).client() as client:
        for model in ("echo", "strategy:zero-shot(echo)"):
            raw = client.chat.completions.with_raw_response.create(
                model=model, messages=HELLO, stream=True, extra_body={"prompt": {"id": "rules"}}
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
            assert text == "hello there friend" and raw.headers[HEADER] == "rules@v1"


@pytest.mark.parametrize(
    ("prompt", "messages", "status", "param", "words"),
    [
        ({"id": "nothing-like-it"}, HELLO, 404, "prompt.id", "No prompt is named `nothing-like-it` here."),
        ({"id": "dsk"}, HELLO, 404, "prompt.id", "Did you mean `desk`?"),
        ({"id": "desk@nope"}, HELLO, 404, "prompt.id", "No prompt is named `desk@nope`"),
        ({"id": "desk", "version": "9"}, HELLO, 404, "prompt.id", "`desk@9`"),
        ({"id": "../desk"}, HELLO, 404, "prompt.id", "`../desk`"),
        ({"id": "desk@prod", "version": "2"}, HELLO, 400, "prompt.version", "Send one of them"),
        ({"id": "desk"}, [], 400, "prompt.variables", "needs a value for `name`, `question`"),
        ({"id": "desk", "variables": {"name": "x", "question": "y", "odd": 1}}, [], 400, "prompt.variables", "no variable `odd`"),
        ({"id": "loop", "variables": {"n": 99999}}, [], 400, "prompt.variables", "its loops take more than"),
        ({"id": "many", "variables": {"text": "x" * 1000}}, [], 400, "prompt.variables", "makes 2,000,000 characters of these values"),
        ({"id": "many", "variables": {"text": "x" * 10000}}, [], 400, "prompt.variables", "it makes more than"),
        ({"id": "rules"}, [], 400, "messages", "The prompt ends with the system's turn"),
        ({"id": "rules"}, [RULES], 400, "messages[0].role", "must end with the user's turn"),
        ({}, HELLO, 400, "prompt", "missing required field `id`"),
        ({"id": ""}, HELLO, 400, "prompt.id", "length >= 1"),
        ({"id": "desk", "odd": 1}, HELLO, 400, "prompt.odd", "not a field"),
        ("desk", HELLO, 400, "prompt", "Expected `object"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(start: Any, prompts: PromptStore, prompt: Any, messages: Any, status: int, param: str, words: str):
    with start(prompts=prompts).http() as http:
        for model in ("echo", "strategy:zero-shot(echo)"):
            answer = http.post("/v1/chat/completions", json={"model": model, "messages": messages, "prompt": prompt})
            error = answer.json()["error"]
            assert answer.status_code == status, error
            assert error["param"] == param and words in error["message"] and str(prompts.root) not in error["message"]


def test_a_message_is_not_needed(start: Any, prompts: PromptStore):
    with start(prompts=prompts).http() as http:
        body = {"model": "echo", "prompt": {"id": "desk@prod", "variables": {"question": "why {{ now }}"}}}
        answer = http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "somebody asks why {{ now }}"


def test_a_server_without_prompts(client: Any):
    with pytest.raises(openai.NotFoundError, match="no stored prompts"):
        client.chat.completions.create(model="echo", messages=HELLO, extra_body={"prompt": {"id": "desk"}})


def test_tenants_know_only_their_own(start: Any, prompts: PromptStore):
    server = start(prompts=prompts, keys=parse_keys("key-of-anna anna desk anna\nkey-of-boss boss", source="test"))

    def ask(key: str, ref: str) -> str:
        with server.client(key) as client:
            prompt = {"prompt": {"id": ref}}
            return client.chat.completions.with_raw_response.create(model="echo", messages=HELLO, extra_body=prompt).headers[HEADER]

    assert ask("key-of-boss", "rules") == "rules@v1"
    with pytest.raises(openai.BadRequestError, match="`name`, `question`"):
        ask("key-of-anna", "desk")
    messages = []
    for ref in ("rules", "rulez"):
        with pytest.raises(openai.NotFoundError) as unseen:
            ask("key-of-anna", ref)
        messages.append(unseen.value.message.replace(ref, "REF"))
    assert messages[0] == messages[1]


def test_changes_are_seen(ask: Any, prompts: PromptStore):
    before = time.time() - 100
    for folder in prompts.root.iterdir():
        os.utime(folder, (before, before))
    for _ in range(2):
        assert ask("rules", HELLO)[1] == "rules@v1"
    prompts.publish(template("rules", {"role": "system", "content": "be very very brief"}))
    answer, header = ask("rules", HELLO)
    assert header == "rules@v2" and answer.usage.prompt_tokens == 4 + 3
    prompts.alias("desk", "prod", 2)
    assert ask("desk@prod", name="Lea", question="why")[1] == "desk@v2"
    prompts.remove("rules", all=True)
    with pytest.raises(openai.NotFoundError):
        ask("rules", HELLO)


def test_a_damaged_file(ask: Any, prompts: PromptStore):
    prompts.resolve("rules").path.write_text("{")
    with pytest.raises(openai.InternalServerError) as damaged:
        ask("rules", HELLO)
    assert damaged.value.code == "prompt_unavailable" and str(prompts.root) not in damaged.value.message
    assert damaged.value.status_code == 503


@pytest.mark.parametrize("model", ["echo", "strategy:zero-shot(echo)"])
def test_a_compiled_prompts_prefix_serves_it(ask: Any, prompts: PromptStore, store: Any, prefix_named: Any, wait_until: Any, model: str):
    fixed = prompts.load("desk@prod").fixed()
    plain = prefix_named("desk", positions=7)
    store.publish(
        Prefix.make(
            name="desk",
            kind="text",
            key_LHND=plain.key_LHND,
            value_LHND=plain.value_LHND,
            fingerprint=plain.header.fingerprint,
            geometry=plain.header.geometry,
            prompt_format="continuation",
            stands_for=StandsFor(messages=messages_hash(fixed), count=len(fixed)),
        )
    )

    def content() -> str:
        return ask("desk@prod", model=model, question="why")[0].choices[0].message.content

    # The first requests may come before the store was read.
    wait_until(lambda: content() == "[desk] somebody asks why")
    answer, header = ask("desk@prod", model=model, question="why")
    assert header == "desk@v1" and answer.usage.prompt_tokens_details.cached_tokens == 7
