"""`assemble`: prompt, history, passages and tools under a budget, and the header that tells what was left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.errors import ConfigError
from foreword.gateway.assembling.budget import json_tokens, message_tokens
from foreword.gateway.budgets import FEWER, SHORTER
from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage, Reply
from foreword.gateway.path_server import build_path
from foreword.gateway.path_wire import PathMessage
from foreword.gateway.stages.assemble import make
from foreword.prompting.store import PromptStore
from foreword.prompting.template import parse_text
from upstreams import FakeUpstream, Seen, answer, refuse, upstream
from walking import close, parts_of, passage_of, served, settings_of
from word_vectors import WordVectors


def talk(turns: int, question: str = "And now?") -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be kind."}]
    for number in range(turns):
        messages += [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    return [*messages, {"role": "user", "content": question}]


def tool(name: str, description: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {"type": "object"}}}


TOOLS = [
    tool("track_parcel", "Tells where a parcel is."),
    tool("get_weather", "Weather by city."),
    tool("play_music", "Plays songs."),
    tool("refund", "Pays money back."),
]


def assembled(
    plan: Mapping[str, Any], body: Any, *, fake: FakeUpstream | None = None, prompts: PromptStore | None = None, degraded: bool = False
) -> Passage:
    """A passage behind the stage."""

    async def main() -> Passage:
        settings = settings_of({"default": {"assemble": plan}}, **({} if fake is None else {"url": fake.url}))
        parts = parts_of(settings, embedder=WordVectors(), prompts=prompts)
        passage = passage_of(settings, body)
        passage.degraded += [FEWER, SHORTER] if degraded else []
        try:
            await make(parts)(passage)
        finally:
            await close(parts)
        return passage

    return asyncio.run(main())


def texts(passage: Passage) -> list[str]:
    return [message.text for message in passage.request.messages]


def test_without_settings_a_request_stays_as_it_is() -> None:
    passage = assembled({}, {"messages": talk(30), "tools": TOOLS})
    assert passage.request is passage.asked and passage.told == {}


def test_the_last_turns_stay_and_what_is_left_out_is_told() -> None:
    passage = assembled({"history_turns": 2}, {"messages": talk(5)})
    assert texts(passage) == ["Be kind.", "question 3", "answer 3", "question 4", "answer 4", "And now?"]
    assert passage.told["foreword-assembled"] == "history -3 dropped"
    assert passage.spared_tokens == sum(
        message_tokens([PathMessage(role="user", content=f"question {n}"), PathMessage(role="assistant", content=f"answer {n}")])
        for n in range(3)
    )


def test_half_as_much_history_stays_where_money_is_short() -> None:
    assert assembled({"history_turns": 4}, {"messages": talk(5)}, degraded=True).told["foreword-assembled"] == "history -3 dropped"


def test_what_falls_out_is_summarised_before_the_turns_that_stay() -> None:
    with upstream(answer("They greeted.")) as fake:
        passage = assembled({"history_turns": 1, "summary_model": "big"}, {"messages": talk(3)}, fake=fake)
    assert texts(passage)[1] == "Notes of what was said before:\nThey greeted.\n\nquestion 2"
    assert passage.told["foreword-assembled"] == "history -2 summarised"
    assert [attempt.why for attempt in passage.attempts] == ["summary"]


def test_where_no_summary_can_be_made_the_turns_are_dropped_and_that_is_told() -> None:
    with upstream(refuse(503)) as fake:
        passage = assembled({"history_turns": 1, "summary_model": "big"}, {"messages": talk(3)}, fake=fake)
    assert texts(passage)[1] == "question 2"
    assert passage.told["foreword-assembled"] == "history -2 dropped"


def test_instructions_in_the_middle_stay() -> None:
    messages = [*talk(1)[:-1], {"role": "system", "content": "Be brief."}, *talk(2)[1:]]
    passage = assembled({"history_turns": 1}, {"messages": messages})
    assert texts(passage)[:2] == ["Be kind.", "Be brief."]


def test_a_call_of_the_question_and_its_result_stay() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": "{}"}}
    messages = [
        *talk(3),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "ok"},
    ]
    passage = assembled({"history_turns": 1}, {"messages": messages})
    assert [message.role for message in passage.request.messages[-3:]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("tokens", [64, 80, 120, 400])
def test_the_budget_holds(tokens: int) -> None:
    passage = assembled({"tokens": tokens}, {"messages": talk(40)})
    used = message_tokens(passage.request.messages)
    assert used <= tokens
    # A turn more would not fit.
    assert used + message_tokens(PathMessage(role="user", content=f"answer {n}") for n in range(2)) + 1 > tokens
    assert texts(passage)[0] == "Be kind." and texts(passage)[-1] == "And now?"


def test_the_budget_holds_with_a_summary() -> None:
    with upstream(answer("word " * 2_000)) as fake:
        passage = assembled({"tokens": 160, "summary_model": "big"}, {"messages": talk(40)}, fake=fake)
    assert message_tokens(passage.request.messages) <= 160
    assert "summarised" in passage.told["foreword-assembled"]
    assert fake.seen[0].body["max_tokens"] == 20


def test_what_must_go_in_and_does_not_fit_is_refused() -> None:
    with pytest.raises(Refusal, match=r"have 64\. Send less") as refused:
        assembled({"tokens": 64}, "word " * 200)
    assert (refused.value.status, refused.value.detail.code) == (400, "context_length_exceeded")


@pytest.fixture
def shop(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in {
        "returns": "Returns are free for thirty days.",
        "hours": "The shop opens at nine.",
        "free": "Parcels are free.",
    }.items():
        (folder / f"{name}.md").write_text(text)
    return str(folder)


def test_passages_stand_before_the_question_with_their_numbers(shop: str) -> None:
    plan = {"passages": {"folder": shop, "at_most": 2, "at_least": 0.2}}
    passage = assembled(plan, {"messages": talk(1, "are returns free for thirty days")})
    assert texts(passage)[-1].endswith("[1] Returns are free for thirty days.\n[2] Parcels are free.\n\nare returns free for thirty days")
    assert passage.told["foreword-passages"] == "returns.md#1, free.md#1"
    assert passage.sources == (("returns.md#1", "Returns are free for thirty days."), ("free.md#1", "Parcels are free."))
    assert texts(passage)[0] == "Be kind."


def test_half_as_many_passages_where_money_is_short(shop: str) -> None:
    plan = {"passages": {"folder": shop, "at_most": 2, "at_least": 0.2}}
    assert assembled(plan, "are returns free for thirty days", degraded=True).told["foreword-passages"] == "returns.md#1"


def test_no_passage_is_put_where_none_is_like_the_question(shop: str) -> None:
    passage = assembled({"passages": {"folder": shop, "at_least": 0.9}}, "quantum chromodynamics")
    assert texts(passage) == ["quantum chromodynamics"] and passage.sources == () and passage.told == {}


def test_passages_keep_the_budget_the_best_first(shop: str) -> None:
    (Path(shop) / "free.md").write_text("Returns are free as parcels are. " * 10)
    plan = {"tokens": 64, "passages": {"folder": shop, "at_most": 3, "at_least": 0.01}}
    passage = assembled(plan, "are returns free for thirty days")
    assert message_tokens(passage.request.messages) <= 64
    assert passage.told["foreword-passages"].startswith("returns.md#1")
    assert passage.told["foreword-assembled"].startswith("passages ")


def test_tools_that_match_are_sent_on() -> None:
    passage = assembled({"tools": "match"}, {"messages": talk(0, "where is the parcel"), "tools": TOOLS, "parallel_tool_calls": False})
    assert passage.request.tools == [TOOLS[0]] and passage.request.parallel_tool_calls is False
    assert passage.told["foreword-assembled"] == "tools 1/4"
    assert passage.spared_tokens == sum(map(json_tokens, TOOLS[1:]))


def test_tools_that_may_go_make_room() -> None:
    near = [tool(f"track_parcel_{number}", "Tells where the parcel is.") for number in range(4)]
    passage = assembled({"tokens": 80, "tools": "match"}, {"messages": talk(0, "where is the parcel"), "tools": near})
    assert isinstance(passage.request.tools, list) and 1 <= len(passage.request.tools) < 4
    assert message_tokens(passage.request.messages) + sum(map(json_tokens, passage.request.tools)) <= 80


def test_tools_that_were_called_are_sent_on_from_then_on() -> None:
    called = {
        "choices": [{"message": {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "play_music", "arguments": "{}"}}]}}]
    }

    async def main() -> list[list[str]]:
        settings = settings_of({"default": {"assemble": {"tools": "used"}}})
        stage, sent = make(parts_of(settings, embedder=WordVectors())), []
        for _ in range(2):
            passage = passage_of(settings, {"messages": talk(0, "where is the parcel"), "tools": TOOLS})
            await stage(passage)
            sent.append([each["function"]["name"] for each in passage.request.tools or ()])
            body = json.dumps(called).encode()
            passage.reply = Reply(model="big", body=body, text="", finish_reason="tool_calls", consumed=None, tool_calls=True)
            for after in passage.afterwards:
                await after()
        return sent

    assert asyncio.run(main()) == [["track_parcel"], ["track_parcel", "play_music"]]


def test_calls_of_streamed_answers_are_seen_when_they_come_back() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "play_music", "arguments": "{}"}}

    async def main() -> list[str]:
        settings = settings_of({"default": {"assemble": {"tools": "used"}}})
        stage = make(parts_of(settings, embedder=WordVectors()))
        turn = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "ok"}]
        await stage(passage_of(settings, {"messages": [*talk(0, "a song"), *turn], "tools": TOOLS}))
        passage = passage_of(settings, {"messages": talk(0, "where is the parcel"), "tools": TOOLS})
        await stage(passage)
        return [each["function"]["name"] for each in passage.request.tools or ()]

    assert asyncio.run(main()) == ["track_parcel", "play_music"]


def test_the_prompt_is_neither_history_nor_shortened(tmp_path: Path) -> None:
    store = PromptStore(tmp_path / "prompts")
    store.publish(parse_text("Answer as a shop does.", source="the test", name="shop"))
    passage = assembled({"prompt": "shop", "history_turns": 1}, {"messages": talk(3)}, prompts=store)
    assert texts(passage) == ["Answer as a shop does.", "Be kind.", "question 2", "answer 2", "And now?"]
    assert passage.prompt == "shop@v1" and passage.prompted == 1


@pytest.mark.parametrize(
    ("plan", "told"), [({"prompt": "shop"}, "no store of prompts"), ({"passages": {"folder": "/nowhere"}}, "embedder")]
)
def test_settings_whose_parts_are_missing_are_refused(plan: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(parts_of(settings_of({"default": {"assemble": plan}})))


def test_along_the_whole_path_with_the_official_client(tmp_path: Path, shop: str) -> None:
    def behaves(seen: Seen) -> Any:
        return answer("They talked of numbers.") if "You keep the notes" in seen.raw.decode() else None

    plan = {"history_turns": 1, "summary_model": "big", "tools": "match", "passages": {"folder": shop, "at_least": 0.2}}
    with upstream(answer("Yes, they are [1]."), chooses=behaves) as fake:
        settings = settings_of(
            {"support": {"rules": ["returns"], "assemble": plan, "capture_share": 1}},
            url=fake.url,
            stages=["intake", "guard-in", "assemble", "route", "infer", "bill"],
            store={"ledger": str(tmp_path / "ledger.sqlite"), "capture": str(tmp_path / "captures.sqlite")},
        )
        with served(build_path(settings, embedder=WordVectors())) as url:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            for stream in (False, True):
                raw = client.chat.completions.with_raw_response.create(
                    model="auto", messages=talk(3, "are returns free for thirty days"), tools=TOOLS, stream=stream
                )
                assert raw.headers["foreword-task"] == "support"
                assert raw.headers["foreword-assembled"] == f"history -2 summarised, tools {len(fake.seen[-1].body['tools'])}/4"
                assert raw.headers["foreword-passages"].startswith("returns.md#1")
                if stream:
                    assert "".join(c.choices[0].delta.content or "" for c in raw.parse() if c.choices) == "Yes, they are [1]."
            client.close()
    # The second request found the summary made.
    assert len(fake.seen) == 3
    sent = fake.seen[-1].body["messages"]
    assert "They talked of numbers." in sent[1]["content"] and "[1] Returns are free" in sent[-1]["content"]

    from foreword.store.database import open_database
    from foreword.telemetry.capture import read

    database = open_database(tmp_path / "captures.sqlite")
    captured = list(read(database))
    database.close()
    assert [one.answer for one in captured] == ["Yes, they are [1]."] * 2
    assert captured[0].sources[0] == ("returns.md#1", "Returns are free for thirty days.")
    assert captured[0].input_tokens == 11
