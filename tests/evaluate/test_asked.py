from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.asked import ask_all
from foreword.prompting.strategy import Solved
from foreword.telemetry.trace import Tracer, read
from foreword.types import Message, Usage


def solved(final: str, *candidates: str) -> Solved:
    tracer = Tracer()
    with tracer.span("run", final):
        pass
    return Solved(
        text=f"Well: {final}",
        final=final,
        candidates=candidates,
        status="answered",
        reason="",
        note="by vote",
        calls=3,
        usage=Usage(prompt_tokens=30, completion_tokens=6),
        cost=None,
        seconds=0.5,
        model_seconds=0.4,
        trace=tracer.trace(),
    )


class Backwards:
    """A solver that is done with the last conversation first."""

    def solve(self, conversations: Sequence[Sequence[Message]], *, take: Callable[[int, Solved], None]) -> None:
        for place in reversed(range(len(conversations))):
            take(place, solved(conversations[place][-1].content, "no", "a refund"))

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


CONVERSATIONS = [(Message(role="user", content=text),) for text in ("a refund, please", "no", "what?")]


def test_rows_keep_their_places_and_say_what_they_took() -> None:
    done: list[int] = []
    rows = ask_all(Backwards(), CONVERSATIONS, progress=done.append)
    assert [row.answer for row in rows] == ["a refund, please", "no", "what?"]
    assert done == [1, 1, 1]
    first = rows[0]
    assert (first.first, first.each) == ("no", ("a refund, please", "no", "a refund"))
    assert (first.calls, first.prompt_tokens, first.completion_tokens, first.note) == (3, 30, 6, "by vote")


def test_labels_are_what_answers_mean() -> None:
    rows = ask_all(Backwards(), CONVERSATIONS, labels=("Refund", "No"), progress=lambda more: None)
    assert [row.answer for row in rows] == ["Refund", "No", "what?"]
    assert rows[0].candidates == ("No", "Refund")


def test_each_rows_trace_is_a_file(tmp_path: Path) -> None:
    ask_all(Backwards(), CONVERSATIONS, progress=lambda more: None, trace_folder=tmp_path / "deep" / "traces")
    files = sorted((tmp_path / "deep" / "traces").iterdir())
    assert [file.name for file in files] == ["00001.jsonl", "00002.jsonl", "00003.jsonl"]
    assert read(files[2]).spans[0].name == "what?"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EvaluationError, match=r"traces cannot be written"):
        ask_all(Backwards(), CONVERSATIONS, progress=lambda more: None, trace_folder=tmp_path / "file" / "traces")


def test_an_answer_without_a_choice_is_its_own_first() -> None:
    class Single(Backwards):
        def solve(self, conversations: Sequence[Sequence[Message]], *, take: Callable[[int, Solved], None]) -> None:
            take(0, solved("yes"))

    (row,) = ask_all(Single(), CONVERSATIONS[:1], progress=lambda more: None)
    assert (row.first, row.each) == ("yes", ("yes",))
