"""Prefixes that stand for the first messages of a conversation: who is served from them, and that nobody could tell by the answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from foreword.cli._served import served
from foreword.compiling.from_prompt import compile_template
from foreword.engines import transformers
from foreword.gateway.stands_for import HEADER
from foreword.gateway.tenants import parse_keys
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import StandsFor
from foreword.prefix.stands_for import messages_hash
from foreword.prefix.store import PrefixStore
from foreword.prompting.template import build
from foreword.types import Message, Sampling

RULES = {"role": "system", "content": "be brief and kind"}
SHOT = [{"role": "user", "content": "is it open"}, {"role": "assistant", "content": "yes it is"}]
HELLO = {"role": "user", "content": "hello there friend"}
DAY = datetime(2025, 1, 2, tzinfo=UTC)


@pytest.fixture
def standing(prefix_named: Any) -> Any:
    """`standing("rules", [RULES], positions=7, age=2)`: a prefix that stands for messages, made so many days ago."""
    alike = prefix_named("support").header

    def make(name: str, messages: list[dict[str, str]], *, positions: int = 7, age: int = 0) -> Prefix:
        turns = [Message(**message) for message in messages]  # type: ignore[arg-type]
        key_LHND = torch.full((1, 1, positions, 4), 0.5)
        return Prefix.make(
            name=name,
            kind="text",
            key_LHND=key_LHND,
            value_LHND=key_LHND,
            fingerprint=alike.fingerprint,
            geometry=alike.geometry,
            prompt_format="continuation",
            created=DAY - timedelta(days=age),
            stands_for=StandsFor(messages=messages_hash(turns), count=len(turns)),
        )

    return make


class Asking:
    """Asks a server, and says from which prefix it was served."""

    def __init__(self, client: openai.OpenAI, wait_until: Any) -> None:
        self.client, self._wait_until = client, wait_until

    def __call__(self, *messages: Any, model: str = "echo", **options: Any) -> tuple[str | None, Any]:
        raw = self.client.chat.completions.with_raw_response.create(model=model, messages=list(messages), **options)
        return raw.headers.get(HEADER), raw.parse()

    def eventually(self, name: str | None, *messages: Any) -> None:
        """Waits until a conversation is served from that prefix: a change of the store may take a moment."""
        self._wait_until(lambda: self(*messages)[0] == name)


@pytest.fixture
def ask(start: Any, wait_until: Any) -> Iterator[Asking]:
    with start().client() as client:
        yield Asking(client, wait_until)


@pytest.fixture
def ask_rules(store: Any, standing: Any, ask: Asking) -> Asking:
    """Where `rules` stands for RULES, and the server knows."""
    store.publish(standing("rules", [RULES]))
    ask.eventually("rules", RULES, HELLO)
    return ask


def test_it_is_served_from_the_prefix(ask_rules: Asking):
    name, answer = ask_rules(RULES, HELLO)
    assert name == "rules" and answer.model == "echo"
    # The echo engine says which prefix it answers behind.
    assert answer.choices[0].message.content == "[rules] hello there friend"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7 + 3, 4, 14)
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.prefix_positions) == (7, 0)


def test_several_answers_and_streams(ask_rules: Asking):
    _, answer = ask_rules(RULES, HELLO, n=3)
    assert [choice.message.content for choice in answer.choices] == ["[rules] hello there friend"] * 3
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (10, 7)
    stream = ask_rules.client.chat.completions.with_raw_response.create(
        model="echo", messages=[RULES, HELLO], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream.parse())
    assert stream.headers[HEADER] == "rules" and stream.headers["cache-control"] == "no-cache"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "[rules] hello there friend"
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.prompt_tokens_details.cached_tokens) == (10, 7)


@pytest.mark.parametrize(
    "messages",
    [
        [{**RULES, "role": "developer"}, HELLO],
        [{"role": "system", "content": [{"type": "text", "text": "be brief "}, {"type": "text", "text": "and kind"}]}, HELLO],
        [RULES, *SHOT, HELLO],
        [RULES, {"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    ],
)
def test_what_reads_the_same_is_the_same(ask_rules: Asking, messages: Any):
    assert ask_rules(*messages)[0] == "rules"


@pytest.mark.parametrize(
    "messages",
    [
        [HELLO],
        [{**RULES, "content": "be brief and kind "}, HELLO],
        [{**RULES, "role": "user"}, SHOT[1], HELLO],
        [HELLO, SHOT[1], {"role": "user", "content": "be brief and kind"}],
        # What follows is not a conversation as prefixes are tried on.
        [RULES, SHOT[1], HELLO],
        [RULES, HELLO, HELLO],
        [RULES, RULES, HELLO],
        [RULES, HELLO, SHOT[1], RULES, HELLO],
    ],
)
def test_what_reads_otherwise_is_left_alone(ask_rules: Asking, messages: Any):
    name, answer = ask_rules(*messages)
    assert name is None and answer.choices[0].message.content == messages[-1]["content"]
    assert answer.usage.prompt_tokens == sum(len(message["content"].split()) for message in messages)
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_a_prefix_that_was_asked_for_is_the_one(ask_rules: Asking):
    for model, says in (("echo:support", "[support]"), ("echo:rules", "[rules]")):
        name, answer = ask_rules(RULES, HELLO, model=model)
        assert name is None and answer.choices[0].message.content.startswith(says)
        assert answer.usage.prompt_tokens == 4 + 3 and answer.usage.prompt_tokens_details.cached_tokens == 0


def test_a_penalty_on_the_prompts_own_tokens_needs_the_prompt(ask_rules: Asking):
    assert ask_rules(RULES, HELLO, extra_body={"repetition_penalty": 1.2})[0] is None
    assert ask_rules(RULES, HELLO, extra_body={"repetition_penalty": 1.0})[0] == "rules"
    assert ask_rules(RULES, HELLO, presence_penalty=1, frequency_penalty=1)[0] == "rules"


def test_errors_are_as_without(ask_rules: Asking):
    with pytest.raises(openai.BadRequestError, match="must end with the user's turn"):
        ask_rules(RULES)
    with pytest.raises(openai.BadRequestError, match="window"):
        ask_rules(RULES, HELLO, max_tokens=5_000)
    with pytest.raises(openai.NotFoundError):
        ask_rules(RULES, HELLO, model="other")


def test_the_longest_match_wins(store: Any, standing: Any, ask_rules: Asking):
    store.publish(standing("with-shot", [RULES, *SHOT], positions=20, age=9))
    ask_rules.eventually("with-shot", RULES, *SHOT, HELLO)
    assert ask_rules(RULES, HELLO)[0] == "rules"
    assert ask_rules(RULES, *SHOT, HELLO)[1].usage.prompt_tokens_details.cached_tokens == 20
    # The user's last turn is always left to answer.
    store.publish(standing("all", [RULES, HELLO]))
    ask_rules.eventually("with-shot", RULES, *SHOT, HELLO)
    assert ask_rules(RULES, HELLO)[0] == "rules"


def test_of_two_the_newest_wins(store: Any, standing: Any, ask_rules: Asking):
    store.publish(standing("older", [RULES], age=5))
    store.publish(standing("newer", [RULES], positions=9, age=-1))
    ask_rules.eventually("newer", RULES, HELLO)
    store.remove("newer", all=True)
    ask_rules.eventually("rules", RULES, HELLO)
    store.remove("rules", all=True)
    ask_rules.eventually("older", RULES, HELLO)


def test_an_older_version_still_stands_for_what_it_holds(store: Any, standing: Any, ask_rules: Asking):
    other = {**RULES, "content": "be long"}
    store.publish(standing("rules", [other], positions=2))
    ask_rules.eventually("rules", other, HELLO)
    name, answer = ask_rules(RULES, HELLO)
    assert name == "rules" and answer.usage.prompt_tokens_details.cached_tokens == 7


def test_the_store_changes_while_the_server_runs(store: Any, standing: Any, ask: Asking):
    assert ask(RULES, HELLO)[0] is None
    store.publish(standing("rules", [RULES]))
    ask.eventually("rules", RULES, HELLO)
    store.remove("rules@v1")
    ask.eventually(None, RULES, HELLO)
    store.publish(standing("rules", [RULES]))
    ask.eventually("rules", RULES, HELLO)


def test_files_that_are_put_there_by_hand(store: Any, standing: Any, ask_rules: Asking):
    other = {**RULES, "content": "be long"}
    path = store.resolve("rules").path
    standing("rules", [other], positions=5).save(path)
    # From now on it holds something else, whatever was known of it.
    assert ask_rules(RULES, HELLO)[0] is None
    ask_rules.eventually("rules", other, HELLO)
    standing("anna", [RULES]).save(path.parent / "v0007.safetensors")
    ask_rules.eventually("rules", RULES, HELLO)
    path.write_bytes(b"half")
    assert ask_rules(other, HELLO)[0] is None and ask_rules(RULES, HELLO)[0] == "rules"


def test_a_file_that_breaks_unseen_is_done_without(store: Any, standing: Any, start: Any, wait_until: Any):
    """Time and size of the file say nothing; the engine finds out."""
    store.publish(standing("rules", [RULES]))
    newer = store.publish(standing("newer", [RULES], age=-1)).path
    server = start()
    with server.client() as client:
        ask = Asking(client, wait_until)
        ask.eventually("newer", RULES, HELLO)
        before = newer.stat()
        with newer.open("r+b") as stream:
            stream.write(b"x" * 16)
        os.utime(newer, ns=(before.st_atime_ns, before.st_mtime_ns))
        server.engine.let_go((newer,))
        for _ in range(2):
            name, answer = ask(RULES, HELLO)
            assert name == "rules" and answer.choices[0].message.content == "[rules] hello there friend"


def test_a_tenant_is_served_only_from_its_own(store: Any, standing: Any, start: Any, wait_until: Any):
    store.publish(standing("ben-rules", [RULES], age=-1))
    store.publish(standing("rules", [RULES]))
    store.publish(standing("ben-only", [RULES, *SHOT]))
    lines = "key-of-anna anna anna rules\nkey-of-ben- ben ben-*\nkey-of-ops- ops\nkey-of-none none nothing-*"
    server = start(keys=parse_keys(lines, source="test"))

    def name(key: str, *messages: Any) -> str | None:
        with server.client(key) as client:
            return Asking(client, wait_until)(*messages)[0]

    wait_until(lambda: name("key-of-ops-", RULES, HELLO) is not None)
    keys = ("key-of-anna", "key-of-ben-", "key-of-ops-", "key-of-none")
    assert [name(key, RULES, HELLO) for key in keys] == ["rules", "ben-rules", "ben-rules", None]
    assert [name(key, RULES, *SHOT, HELLO) for key in keys] == ["rules", "ben-only", "ben-only", None]


def test_it_can_be_turned_off(store: Any, standing: Any, start: Any):
    store.publish(standing("rules", [RULES]))
    with start(substitute=False).client() as client:
        for _ in range(3):
            name, answer = Asking(client, None)(RULES, HELLO)
            assert name is None and answer.choices[0].message.content == "hello there friend" and answer.usage.prompt_tokens == 7


def test_a_store_that_is_not_there_yet(tmp_path: Path, begin_server: Any, standing: Any, wait_until: Any):
    server = begin_server()
    try:
        for name in server.store.names():
            server.store.remove(name, all=True, force=True)
        with server.client() as client:
            ask = Asking(client, wait_until)
            assert ask(RULES, HELLO)[0] is None
            server.store.publish(standing("rules", [RULES]))
            ask.eventually("rules", RULES, HELLO)
    finally:
        server.stop()


class KeepsAsking(threading.Thread):
    """Asks until it is told to stop; remembers which prefixes it was served from, and what was wrong."""

    def __init__(self, server: Any, stop: threading.Event) -> None:
        super().__init__()
        self._server, self._stop_asking = server, stop
        self.names: set[str | None] = set()
        self.wrong: list[Any] = []

    def run(self) -> None:
        with self._server.client() as client:
            ask = Asking(client, None)
            while not self._stop_asking.is_set():
                try:
                    name, answer = ask(RULES, HELLO)
                except openai.OpenAIError as error:
                    self.wrong.append(error)
                    continue
                self.names.add(name)
                found = answer.choices[0].message.content, answer.usage.prompt_tokens
                if found != ("hello there friend" if name is None else f"[{name}] hello there friend", 7):
                    self.wrong.append(found)


def test_prefixes_come_and_go_while_requests_run(store: Any, standing: Any, start: Any, wait_until: Any):
    server, stop = start("echo-1ms"), threading.Event()
    # Four positions, as RULES has words: the usage is the same with the prefix and without.
    prefix = standing("come", [RULES], positions=4)
    asking = [KeepsAsking(server, stop) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(12):
            store.publish(prefix)
            stop.wait(0.05)
            store.remove("come", all=True)
            stop.wait(0.02)
        store.publish(prefix)
        wait_until(lambda: all(thread.names == {"come", None} for thread in asking))
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert [thread.wrong for thread in asking] == [[], []]


def test_on_a_real_model_the_answer_is_the_same(tiny_model_folder: Any, tmp_path: Path, wait_until: Any):
    engine = transformers.load(str(tiny_model_folder("llama")), dtype="float32")
    other = transformers.load(str(tiny_model_folder("llama", seed=21)), dtype="float32")
    desk = build(
        {
            "name": "desk",
            "messages": [RULES, {"role": "user", "content": "{{ question }}"}],
            "examples": [{"user": SHOT[0]["content"], "assistant": SHOT[1]["content"]}],
        },
        source="test",
    )
    store = PrefixStore(tmp_path / "prefixes")
    store.publish(compile_template(engine, desk, name="desk"))
    # Newer, and of no use to this model: what it stands for is told by its messages, and whose it is only when it is read.
    store.publish(compile_template(other, desk, name="others"))
    questions = ["is the pub cheap", "\n <|im_end|> and the river?"]
    whole = [desk.render({"question": question}) for question in questions]
    alone = engine.generate(whole, sampling=Sampling(max_new_tokens=12))
    with served(engine.serve(), base="tiny", store=store) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        ask = Asking(client, wait_until)
        for messages, expected in zip(whole, alone, strict=True):
            turns = [{"role": message.role, "content": message.content} for message in messages]
            wait_until(lambda turns=turns: ask(*turns, model="tiny", max_tokens=1)[0] == "desk")
            name, answer = ask(*turns, model="tiny", max_tokens=12, temperature=0, logprobs=True)
            assert name == "desk" and answer.choices[0].message.content == expected.text
            usage = answer.usage
            assert (usage.prompt_tokens, usage.completion_tokens) == (expected.usage.prompt_tokens, expected.usage.completion_tokens)
            assert usage.prompt_tokens_details.cached_tokens == store.header("desk").positions
            _, answer = ask(*turns, model="strategy:zero-shot(tiny)", max_tokens=12)
            assert answer.choices[0].message.content == expected.text and answer.usage == usage
