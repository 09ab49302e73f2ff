"""A dictionary as a prefix: whole, smaller, and each entry on its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import chosen_entries, compiler, entries
from foreword.compiling.compilers import dictionary, text
from foreword.compiling.settings import CompileSettings
from foreword.engine import Row
from foreword.errors import ConfigError, DataError, PrefixError, WindowError
from foreword.prefix.rotary import rotate

UNORDERED = "mill: a machine that grinds\ngate: a movable barrier\ngate: a way in\nanimal: a living being\n"
ORDERED = "animal: a living being\ngate: 1. a movable barrier 2. a way in\nmill: a machine that grinds\n"


class Noted:
    def __init__(self) -> None:
        self.stages: list[list[Any]] = []
        self.notes: list[str] = []

    def stage(self, text: str, total: int) -> None:
        self.stages.append([text, total, 0])

    def advance(self, pieces: int) -> None:
        self.stages[-1][2] += pieces

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def load_tiny(tiny_model_folder: Any):
    def loaded(family: Any, **options: Any) -> Any:
        return load(str(tiny_model_folder(family, **options)), dtype="float32").engine

    return loaded


def separate(engine: Any, source: str = UNORDERED, **fields: Any) -> Any:
    return dictionary.compile_source(engine, source, name="words", settings=CompileSettings(separate=True), **fields)


def test_it_is_found_by_its_name_and_honours_what_it_says():
    assert compiler.get("dictionary") is dictionary
    assert set(CompileSettings.model_fields) >= dictionary.HONOURS


@pytest.mark.parametrize("chat", [False, True])
def test_whole_it_is_the_text_of_its_entries_in_order(load_tiny: Any, chat: bool):
    engine = load_tiny("llama")
    settings = CompileSettings(chat=chat)
    found = dictionary.compile_source(engine, UNORDERED, name="words", settings=settings)
    wanted = text.compile_source(engine, ORDERED, name="words", settings=settings)
    assert found.header.digest == wanted.header.digest and found.header.kind == "text"
    assert found.header.recipe["compiler"] == "dictionary" and found.header.recipe["entry_count"] == 3


def test_by_topic(load_tiny: Any):
    engine = load_tiny("llama")
    rows = "word\tdefinition\ttopic\nmill\tit grinds\tmachines\nowl\ta bird\tanimals\naxe\tit cuts\tmachines\n"
    found = dictionary.compile_source(engine, rows, name="words", settings=CompileSettings(order="topic"))
    wanted = text.compile_source(engine, "owl: a bird\naxe: it cuts\nmill: it grinds\n", name="words")
    assert found.header.digest == wanted.header.digest


def test_smaller(load_tiny: Any):
    engine = load_tiny("llama")
    settings = CompileSettings(ratio=4, questions=2)
    found = dictionary.compile_source(engine, UNORDERED, name="words", settings=settings)
    whole = dictionary.compile_source(engine, UNORDERED, name="words")
    assert found.header.kind == "compacted" and found.positions == round(whole.positions / 4)
    assert found.header.recipe["entry_count"] == 3 and found.header.recipe["tokens"] == whole.positions


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt_neox"])
def test_separate_entries_are_each_read_behind_the_sink_alone(load_tiny: Any, family: Any):
    engine = load_tiny(family)
    found = separate(engine)
    sink = text.compile_source(engine, dictionary.OPENING, name="sink")
    assert found.header.sink == sink.positions
    torch.testing.assert_close(found.key_LHND[:, :, : sink.positions], sink.key_LHND, atol=1e-5, rtol=1e-5)
    places = chosen_entries.places(found)
    assert [place.word for place in places] == ["animal", "gate", "mill"]
    assert [places[0].start, *(place.end for place in places)] == [sink.positions, *(place.start for place in places[1:]), found.positions]
    for place, line in zip(places, ORDERED.splitlines(keepends=True), strict=True):
        key_LHND, value_LHND = engine.read(engine.encode(line), behind=(sink.key_LHND, sink.value_LHND))
        turned = rotate(key_LHND, engine.geometry, place.start - sink.positions)
        torch.testing.assert_close(found.key_LHND[:, :, place.start : place.end], turned, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.value_LHND[:, :, place.start : place.end], value_LHND, atol=1e-4, rtol=1e-4)


def test_a_chosen_entry_is_what_the_model_reads_behind_the_sink(load_tiny: Any):
    engine = load_tiny("llama")
    chosen = chosen_entries.select(separate(engine), "Is it a mill?", most_entries=1)
    read = text.compile_source(engine, dictionary.OPENING + "mill: a machine that grinds\n", name="read")
    row = Row(prompt=engine.encode("Is it?"), targets=(engine.encode(" yes"),))
    with torch.inference_mode():
        found = engine.target_log_probs([row], chosen.key_LHND, chosen.value_LHND)
        wanted = engine.target_log_probs([row], read.key_LHND, read.value_LHND)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_many_entries_are_read_in_groups_with_the_same_result(load_tiny: Any, monkeypatch: pytest.MonkeyPatch):
    engine = load_tiny("llama")
    together = separate(engine)
    monkeypatch.setattr(dictionary, "GROUP_TOKENS", 1)
    alone = separate(engine)
    torch.testing.assert_close(together.key_LHND, alone.key_LHND, atol=1e-5, rtol=1e-5)
    assert together.header.recipe == alone.header.recipe


def test_a_dictionary_larger_than_the_window_serves_by_chosen_entries(load_tiny: Any):
    engine, noted = load_tiny("llama"), Noted()
    large = "".join(f"word{number}: the meaning of number {number}\n" for number in range(60))
    found = separate(engine, large, observer=noted)
    assert found.positions > engine.window and "by chosen entries alone" in noted.notes[0]
    assert all(done == total for _, total, done in noted.stages)
    chosen = chosen_entries.select(found, "What does “word41” mean?", most_entries=1)
    assert [place.word for place in chosen_entries.places(chosen)] == ["word41"]
    assert engine.generate([], prefix=chosen) == []
    with pytest.raises(WindowError):
        dictionary.compile_source(engine, large, name="whole")


@pytest.mark.parametrize("fields", [{"chat": True}, {"ratio": 2}, {"positions": 5}, {"tail": 3}])
def test_separate_entries_keep_their_size_and_place(load_tiny: Any, fields: dict[str, Any]):
    with pytest.raises(ConfigError, match="Separate entries keep all their positions"):
        dictionary.compile_source(load_tiny("llama"), UNORDERED, name="words", settings=CompileSettings(separate=True, **fields))


def test_what_cannot_be_compiled(load_tiny: Any):
    engine = load_tiny("llama")
    with pytest.raises(DataError, match="line 1: no colon"):
        dictionary.compile_source(engine, "no entries here", name="words")
    with pytest.raises(ConfigError, match="needs no tail"):
        dictionary.compile_source(engine, UNORDERED, name="words", settings=CompileSettings(tail=4))
    with pytest.raises(WindowError, match="The entry `long` has"):
        separate(engine, f"long: {'very ' * 600}\n")
    with pytest.raises(PrefixError, match="absolute position embeddings"):
        separate(load_tiny("gpt2"))


def test_entries_are_written_as_they_are_read():
    assert entries.written(entries.ordered(entries.parse(UNORDERED), "alphabetical")) == ORDERED
