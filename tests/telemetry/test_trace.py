"""Steps within steps, also when many are under way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from foreword.errors import DataError
from foreword.telemetry.trace import Trace, Tracer, as_text, read


def test_steps_stand_under_what_was_open() -> None:
    tracer = Tracer()
    with tracer.span("run", "outer") as outer:
        with tracer.span("call", "first", {"purpose": "answer"}) as first:
            first.set(prompt_tokens=12)
        with tracer.span("call", "second"):
            pass
    trace = tracer.trace()
    assert [(span.id, span.parent, span.name) for span in trace.spans] == [(1, None, "outer"), (2, 1, "first"), (3, 1, "second")]
    assert trace.children(outer.id) == trace.of_kind("call")
    assert trace.spans[1].attributes == {"purpose": "answer", "prompt_tokens": 12}
    assert trace.spans[0].seconds >= trace.spans[1].seconds >= 0


def test_branches_do_not_get_mixed_up() -> None:
    tracer = Tracer()

    async def branch(name: str) -> None:
        with tracer.span("search", name):
            await asyncio.sleep(0)
            with tracer.span("call", name):
                await asyncio.sleep(0)

    async def all_branches() -> None:
        with tracer.span("run", "all"):
            await asyncio.gather(*(branch(str(number)) for number in range(50)))

    asyncio.run(all_branches())
    spans = {span.id: span for span in tracer.trace().spans}
    calls = tracer.trace().of_kind("call")
    assert len(calls) == 50
    for call in calls:
        assert call.parent is not None and spans[call.parent].kind == "search" and spans[call.parent].name == call.name
        assert spans[call.parent].parent == 1


def test_half_a_character_is_written_as_a_question_mark(tmp_path: Path) -> None:
    tracer = Tracer()
    with tracer.span("call", "x", {"prompt": [{"content": "\ud800 and so on"}], "\udfff": float("inf")}):
        pass
    tracer.trace().write(tmp_path / "trace.jsonl")
    (span,) = read(tmp_path / "trace.jsonl").spans
    assert span.attributes == {"prompt": [{"content": "? and so on"}], "?": "Infinity"}


def test_outermost_starts_a_tree_of_its_own() -> None:
    outer, inner = Tracer(), Tracer()
    with outer.span("run", "agent"):
        with inner.outermost(), inner.span("run", "strategy"):
            pass
        with outer.span("call", "model"):
            pass
    assert [span.parent for span in inner.trace().spans] == [None]
    assert [span.parent for span in outer.trace().spans] == [None, 1]


def test_how_a_step_ends() -> None:
    tracer = Tracer()
    with pytest.raises(ValueError, match="broken"), tracer.span("tool", "bad"):
        raise ValueError("broken")
    with pytest.raises(KeyboardInterrupt), tracer.span("tool", "stopped"):
        raise KeyboardInterrupt
    with tracer.span("tool", "told") as span:
        span.failed("no such thing")
    with pytest.raises(ValueError), tracer.span("tool", "silent"):
        raise ValueError
    with tracer.span("tool", "open"):
        trace = tracer.trace()
    assert [(span.status, span.message) for span in trace.spans] == [
        ("error", "broken"),
        ("cancelled", ""),
        ("error", "no such thing"),
        ("error", "ValueError"),
        ("ok", ""),
    ]
    assert all(span.seconds >= 0 for span in trace.spans)


def test_written_and_read_again(tmp_path: Path) -> None:
    tracer = Tracer()
    with tracer.span("run", "r", {"text": "ü\n✓", "score": 0.25, "steps": [1, {"a": None}]}), tracer.span("call", "c"):
        pass
    path = tmp_path / "trace.jsonl"
    trace = tracer.trace()
    trace.write(path)
    assert read(path) == trace
    assert [json.loads(line)["name"] for line in path.read_text(encoding="utf-8").splitlines()] == ["r", "c"]
    assert [file.name for file in tmp_path.iterdir()] == ["trace.jsonl"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json\n", ":1 is no step"),
        ('{"id": 1, "parent": null, "kind": "dance", "name": "x", "start": 0, "seconds": 0}\n', "kind"),
        ('{"id": 1, "parent": null, "kind": "call", "name": "x", "start": 0, "seconds": 0, "secret": 1}\n', "secret"),
    ],
)
def test_what_is_no_trace_is_told(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        read(path)


def test_bytes_and_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "bytes")


def test_as_text_is_indented() -> None:
    tracer = Tracer()
    with tracer.span("run", "r"), tracer.span("call", "c", {"tokens": 3}) as span:
        span.failed("gone")
    first, second = as_text(tracer.trace(), attributes=True).splitlines()
    assert first.startswith("run r ") and second.startswith("  call c ") and second.endswith('[error: gone] {"tokens": 3}')
    assert as_text(Trace(spans=())) == ""
