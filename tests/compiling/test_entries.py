"""A dictionary's entries: three ways to write them, two orders, and what is no entry."""

from __future__ import annotations

import json
import random

import pytest

from foreword.compiling import entries
from foreword.compiling.entries import Entry, Sense
from foreword.errors import DataError


def entry(word: str, *definitions: str) -> Entry:
    return Entry(word=word, senses=tuple(Sense(definition=definition) for definition in definitions))


def test_plain_lines():
    found = entries.parse("\ufeffgate: a movable barrier\n\n  mill : a machine: it grinds \r\n")
    assert found == (entry("gate", "a movable barrier"), entry("mill", "a machine: it grinds"))


def test_tab_separated_without_and_with_named_columns():
    assert entries.parse("gate\ta movable barrier\n") == (entry("gate", "a movable barrier"),)
    named = "definition\tWord\tsynonyms\ttopic\nit grinds\tmill\tgrinder|crusher\tmachines\nbarrier\tgate\t\t\n"
    mill, gate = entries.parse(named)
    assert mill == Entry(word="mill", senses=(Sense(definition="it grinds", topic="machines", synonyms=("grinder", "crusher")),))
    assert gate == entry("gate", "barrier")


def test_json_lines_with_further_fields():
    row = {"word": "gate", "definition": " a movable\nbarrier", "pos": "noun", "examples": ["shut the gate"], "synonyms": "door", "id": 7}
    (found,) = entries.parse(json.dumps(row) + "\n")
    assert found.senses == (Sense(definition="a movable barrier", pos="noun", examples=("shut the gate",), synonyms=("door",)),)
    assert found.text == "gate: (noun) a movable barrier; also door; “shut the gate”\n"


def test_meanings_of_one_word_are_kept_together_and_each_once():
    found = entries.parse("bank: sloping land\nmill: it grinds\nbank: a house for money\nbank: sloping land\nBank: a name\n")
    assert found == (entry("bank", "sloping land", "a house for money"), entry("mill", "it grinds"), entry("Bank", "a name"))
    assert found[0].text == "bank: 1. sloping land 2. a house for money\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no entries: it is empty"),
        (" \n\t\n", "no entries: it is empty"),
        ("word\tdefinition\n", "nothing under its first line"),
        ("gate: barrier\nmill grinds\n", "1 of 2 lines .* line 2: no colon after a word in `mill grinds`"),
        ("gate: barrier\n\nmill: \n", "line 3: no definition for `mill`"),
        (": barrier\n", "line 1: no word"),
        ("gate\tbarrier\tnoun\n", "line 1: 3 cells where 2 are wanted .* name more columns in the first line"),
        ('{"word": "gate", "definition": "b"}\n{"word": "mill"}', "line 2: no definition for `mill`"),
        ('{"word": "gate", "definition": "b"}\n{"word": ', "line 2: invalid JSON"),
        ('{"word": "gate", "definition": "b"}\n["mill"]', "line 2: a line must be one JSON object; got list"),
        ('{"word": "gate", "definition": 3}', "line 1: `definition` must be a text; got int"),
        ('{"word": "gate", "definition": "b", "examples": [1]}', "line 1: `examples` must be a text; got int"),
        ("gate: barrier\nmill: \x00\x01\n", "no text: line 2 has control characters"),
        ("\n".join("no entry" for _ in range(9)), "9 of 9 lines .* line 5: .*; and 4 more"),
    ],
)
def test_what_is_no_dictionary(text: str, message: str):
    with pytest.raises(DataError, match=message):
        entries.parse(text)


TOPICS = (
    ("dog", "an animal kept for company and for hunting"),
    ("oak", "a tree with acorns and hard wood"),
    ("cat", "an animal kept for company and for catching mice"),
    ("elm", "a tree with hard wood"),
    ("bus", "a vehicle for many passengers"),
    ("tram", "a vehicle on rails for many passengers"),
)


def test_alphabetical_order_does_not_look_at_case():
    found = entries.ordered([entry("b", "x"), entry("C", "x"), entry("a", "x"), entry("c", "x")], "alphabetical")
    assert [one.word for one in found] == ["a", "b", "C", "c"]


def test_topics_that_are_named():
    plain = [entry("zebra", "an animal"), entry("axe", "a tool")]
    topics = {"b": "trees", "c": "Animals", "a": "trees"}
    named = [Entry(word=word, senses=(Sense(definition="x", topic=topic),)) for word, topic in topics.items()]
    found = entries.ordered([*plain, *named], "topic")
    assert [one.word for one in found] == ["c", "a", "b", "axe", "zebra"]


@pytest.mark.parametrize("seed", range(3))
def test_topics_that_are_found_put_neighbours_together_however_entries_come(seed: int):
    given = [entry(*row) for row in TOPICS]
    random.Random(seed).shuffle(given)
    found = [one.word for one in entries.ordered(given, "topic")]
    assert found[0] == "bus" and sorted(found) == sorted(word for word, _ in TOPICS)
    assert all(abs(found.index(one) - found.index(other)) == 1 for one, other in (("dog", "cat"), ("oak", "elm"), ("bus", "tram")))


def test_entries_that_share_nothing_stay_in_alphabetical_order():
    given = [entry("c", "three"), entry("b", "two"), entry("a", "one")]
    assert [one.word for one in entries.ordered(given, "topic")] == ["a", "b", "c"]
    assert entries.ordered([entry("a", "one")], "topic") == (entry("a", "one"),)


def test_written_entries_can_be_read_again():
    given = [entry(*row) for row in TOPICS]
    assert entries.parse(entries.written(given)) == tuple(given)
