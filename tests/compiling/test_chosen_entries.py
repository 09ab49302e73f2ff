"""Which entries a question gets, and that they are the dictionary's own, moved together."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import chosen_entries
from foreword.compiling.chosen_entries import Place, checksums, ranked, select
from foreword.compiling.compilers import dictionary
from foreword.compiling.settings import CompileSettings
from foreword.errors import ConfigError, PrefixError
from foreword.prefix.artifact import Prefix
from foreword.prefix.operations import compose, quantize
from foreword.prefix.rotary import rotate

ENTRIES = {
    "animal": "a living being that can move",
    "doe": "a female deer",
    "gate": "a movable barrier in a fence",
    "ice cream": "a frozen sweet made with cream",
    "mean": "to intend something",
    "mill": "a machine that grinds grain",
    "stop": "to come to an end",
    "zebra": "a striped animal like a horse",
}
TEXT = "".join(f"{word}: {definition}\n" for word, definition in ENTRIES.items())


def places() -> list[Place]:
    return [
        Place(word=word, start=3 * number, end=3 * number + 3, terms=checksums(f"{word} {definition}"))
        for number, (word, definition) in enumerate(ENTRIES.items(), start=1)
    ]


def chosen(question: str) -> list[str]:
    return [list(ENTRIES)[index] for index in ranked(places(), question)]


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("What is a gate?", "gate"),
        ("GATE?", "gate"),
        ("Who stopped the fence from moving?", "stop"),
        ("What do zebras eat?", "zebra"),
        ("Is Ice Cream healthy?", "ice cream"),
        ("What does “mean” mean?", "mean"),
        ("What does 'gates' mean?", "gate"),
        ("Which word means “a machine that grinds grain”?", "mill"),
        ("Which word means “a striped animal like a horse”?", "zebra"),
    ],
)
def test_the_entry_that_a_question_is_about_comes_first(question: str, first: str):
    assert chosen(question)[0] == first


def test_words_of_the_question_come_before_similar_definitions():
    found = chosen("Which animal is near the fence?")
    assert found[0] == "animal" and set(found[1:]) == {"gate", "zebra"}


def test_how_a_question_is_asked_does_not_count_before_what_it_is_about():
    assert chosen("What does stopping mean?") == ["stop", "mean"]
    assert "doe" not in chosen("What does it say?")


def test_nothing_in_common_is_not_chosen():
    assert chosen("Hello there!") == []


def test_most_similar_first_and_the_dictionarys_order_between_equals():
    twins = [Place(word=word, start=1, end=2, terms=checksums("the same thing")) for word in ("one", "two")]
    near = Place(word="three", start=1, end=2, terms=checksums("the very same thing indeed"))
    assert ranked([near, *twins], "same things, very much so indeed") == [0, 1, 2]
    assert ranked(twins, "same") == [0, 1]


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


@pytest.fixture(scope="module")
def prefix(engine: Any) -> Prefix:
    return dictionary.compile_source(engine, TEXT, name="words", settings=CompileSettings(separate=True))


def words_of(prefix: Prefix) -> list[str]:
    return [place.word for place in chosen_entries.places(prefix)]


def test_chosen_entries_are_the_dictionarys_own_moved_together(engine: Any, prefix: Prefix):
    found = select(prefix, "Does a mill have a gate?", most_entries=2)
    assert words_of(found) == ["gate", "mill"]
    sink = prefix.header.sink
    assert torch.equal(found.key_LHND[:, :, :sink], prefix.key_LHND[:, :, :sink])
    by_word = {place.word: place for place in chosen_entries.places(prefix)}
    for place in chosen_entries.places(found):
        old = by_word[place.word]
        assert torch.equal(found.value_LHND[:, :, place.start : place.end], prefix.value_LHND[:, :, old.start : old.end])
        turned = rotate(prefix.key_LHND[:, :, old.start : old.end], engine.geometry, place.start - old.start)
        torch.testing.assert_close(found.key_LHND[:, :, place.start : place.end], turned, atol=1e-5, rtol=1e-5)
    assert found.positions == sink + sum(by_word[word].end - by_word[word].start for word in ("gate", "mill"))


def test_the_same_entries_give_the_same_prefix_and_can_be_chosen_from(prefix: Prefix):
    one, other = (select(prefix, question, most_entries=2) for question in ("A mill with a gate?", "The gate of a mill?"))
    assert one.header.digest == other.header.digest and one.header.parents == (prefix.header.digest,)
    assert words_of(select(one, "What is a mill?", most_entries=1)) == ["mill"]
    once, twice = (select(chosen, "What is a mill?", most_entries=1) for chosen in (prefix, one))
    torch.testing.assert_close(once.key_LHND, twice.key_LHND, atol=1e-5, rtol=1e-5)
    assert once.header.recipe["entries"] == twice.header.recipe["entries"]


def test_a_bound_on_positions_passes_over_what_does_not_fit(prefix: Prefix):
    by_word = {place.word: place.end - place.start for place in chosen_entries.places(prefix)}
    room = prefix.header.sink + by_word["doe"]
    assert by_word["ice cream"] > by_word["doe"]
    found = select(prefix, "Has a doe ever had ice cream?", positions=room)
    assert words_of(found) == ["doe"] and found.positions == room


def test_no_entry_leaves_the_sink(prefix: Prefix):
    found = select(prefix, "Hello there!")
    assert found.positions == prefix.header.sink and chosen_entries.places(found) == ()
    assert select(found, "What is a gate?").positions == prefix.header.sink


def test_an_int8_dictionary(prefix: Prefix):
    small = quantize(prefix)
    wanted, found = (select(one, "What is a gate?", most_entries=1) for one in (prefix, small))
    assert found.header.dtype == "float32" and words_of(found) == ["gate"]
    torch.testing.assert_close(found.value_LHND, wanted.value_LHND, atol=0.02, rtol=0.02)


def test_what_cannot_be_chosen_from(engine: Any, prefix: Prefix):
    whole = dictionary.compile_source(engine, TEXT, name="whole")
    with pytest.raises(PrefixError, match=r"`whole` has no entries to choose from.*--separate"):
        select(whole, "What is a gate?")
    with pytest.raises(PrefixError, match="no entries to choose from"):
        select(compose([prefix, prefix], "words+words"), "What is a gate?")
    with pytest.raises(ConfigError, match="At least one entry"):
        select(prefix, "What is a gate?", most_entries=0)
    with pytest.raises(ConfigError, match="leave no room for an entry"):
        select(prefix, "What is a gate?", positions=prefix.header.sink)


@pytest.mark.parametrize(
    "entries",
    [
        [{"word": "gate", "start": 2, "end": 10_000, "terms": []}],
        [{"word": "gate", "start": 5, "end": 5, "terms": []}],
        [{"word": "gate", "start": 9, "end": 12, "terms": []}, {"word": "mill", "start": 5, "end": 8, "terms": []}],
        [{"word": "gate"}],
        "gate",
    ],
)
def test_a_header_that_cannot_be(prefix: Prefix, entries: Any):
    altered = Prefix(header=prefix.header.changed(recipe={"entries": entries}), key_LHND=prefix.key_LHND, value_LHND=prefix.value_LHND)
    with pytest.raises(PrefixError, match="do not lie within its positions"):
        select(altered, "What is a gate?")
