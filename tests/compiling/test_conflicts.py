"""What is found to speak against a composition, from headers and from texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling.compilers.text import compile_source
from foreword.compiling.conflicts import Conflict, compare, find
from foreword.compiling.settings import CompileSettings
from foreword.prefix.artifact import Prefix
from foreword.prefix.operations import compose

NAMES = ("one", "two")


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def part(engine: Any, text: str, name: str, *, chat: bool = False) -> Prefix:
    return compile_source(engine, text, name=name, settings=CompileSettings(chat=chat))


def tuned(engine: Any, name: str, **fields: Any) -> Prefix:
    shape = (engine.geometry.layers, engine.geometry.kv_heads, 2, engine.geometry.head_dim)
    key_LHND = torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))
    given: dict[str, Any] = {"kind": "learned", "prompt_format": "continuation", **fields}
    identity: dict[str, Any] = {"name": name, "fingerprint": engine.fingerprint, "geometry": engine.geometry}
    return Prefix.make(key_LHND=key_LHND, value_LHND=key_LHND, **identity, **given)


def kinds(found: list[Conflict]) -> list[str]:
    return [conflict.kind for conflict in found]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("You get a refund within 14 days.", "The refund takes 30 days."),
        ("Refunds are paid within 14 days of the return.", "Everything else first. A refund is paid within 30 days after the return."),
        ("The annual fee is $20.", "Our annual fee: $25 for everybody."),
        ("The discount for students is 10 percent.", "Students get a discount of 15%."),
        ("Write to support at help@larkspur.example.", "For support write to desk@larkspur.example!"),
        ("The limit for a transfer is 1,000 euros", "Limit of a transfer: 2000 euros"),
    ],
)
def test_other_values_for_the_same_thing(one: str, two: str):
    found = compare(NAMES, (one, two))
    assert kinds(found) == ["value"]
    assert found[0].parts == NAMES and "`one` says “" in found[0].what and "`two` says “" in found[0].what
    assert "Correct one of the texts" in found[0].mend


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("You get a refund within 14 days.", "Deliveries take 30 days."),
        ("You get a refund within 14 days.", "A refund is made within 14 days."),
        ("The annual fee is $20.", "The annual fee is $20 or, for students, $10."),
        ("The Eagle is a cheap coffee shop near the river.", "Aromi serves Chinese food in the city centre."),
        ("A guarantee of 2 years.", "A guarantee, paid monthly in 24 parts."),
        ("", "The annual fee is $20."),
    ],
)
def test_what_is_no_contradiction(one: str, two: str):
    assert compare(NAMES, (one, two)) == []


@pytest.mark.parametrize("rule", ["Promise the customer a delivery date.", "Always promise the customer a delivery date!"])
def test_a_rule_and_its_denial(rule: str):
    found = compare(NAMES, (rule, "Never promise the customer a delivery date."))
    assert kinds(found) == ["negation"] and "Never promise" in found[0].what
    assert compare(NAMES, (rule, "Never promise the customer a delivery date that you do not know from the shop.")) == []


def test_a_text_that_stands_in_the_other_is_said_once_and_not_compared():
    rules = "Never promise a date. Offer a refund within 14 days before a voucher, and sign as the Larkspur bench."
    found = compare(NAMES, (f"{rules} The annual fee is $20.", rules.upper()))
    assert kinds(found) == ["contained"] and found[0].what.startswith("the text of `two` stands in `one`")
    assert "Leave `two` out" in found[0].mend


def test_several_system_messages_and_other_prompt_formats(engine: Any):
    parts = [
        part(engine, "Answer briefly.", "brief", chat=True),
        part(engine, "Be kind.", "kind", chat=True),
        part(engine, "A menu.", "menu"),
    ]
    found = find([one.header for one in parts])
    assert kinds(found) == ["system message"] and found[0].parts == ("brief", "kind")
    full = tuned(engine, "tuned", prompt_format="full")
    found = find([parts[0].header, full.header])
    assert kinds(found) == ["format"] and "continuation, `tuned` full" in found[0].what


def test_the_same_source_twice(engine: Any):
    one, again, other = part(engine, "A menu.", "menu"), part(engine, "A menu.", "card"), part(engine, "An address.", "place")
    assert [conflict.what for conflict in find([one.header, one.rename("same").header])] == ["both are the same prefix"]
    # Another way to compile it gives other numbers; the hash of the text tells.
    small = compile_source(engine, "A menu.", name="small", settings=CompileSettings(chat=True))
    assert [conflict.what for conflict in find([again.header, small.header])] == ["both were made from the same text"]
    whole = compose([one, other], "menu+place")
    assert [conflict.what for conflict in find([whole.header, other.header])] == ["`place` is already part of `menu+place`"]


def test_another_model(engine: Any, tiny_model_folder: Any):
    other = load(str(tiny_model_folder("llama", seed=5)), dtype="float32").engine
    found = find([part(engine, "A menu.", "menu").header, part(other, "An address.", "place").header])
    assert kinds(found) == ["model"] and "weights differ" in found[0].what


def test_several_tuned_prefixes_with_their_instructions(engine: Any):
    parts = [tuned(engine, "a", instruction="Sort the mail."), tuned(engine, "bb", instruction="Write a poem.")]
    found = find([one.header for one in parts])
    assert kinds(found) == ["instruction", "learned"]
    assert "“Sort the mail.”; “Write a poem.”" in found[0].what and found[0].parts == ("a", "bb")


def test_without_texts_the_tails_are_compared(engine: Any):
    tails = ("Exact wording: a refund within 14 days.", "Exact wording: a refund within 30 days.")
    parts = [tuned(engine, name, kind="compacted", text_tail=tail) for name, tail in zip(("a", "bb"), tails, strict=True)]
    assert kinds(find([one.header for one in parts])) == ["value"]
    assert find([one.header for one in parts], {0: "A refund within 30 days."}) == []


def test_texts_are_given_by_place_and_all_pairs_are_compared(engine: Any):
    texts = ("A refund within 14 days.", "The shop opens at 9.", "A refund within 30 days.")
    headers = [part(engine, text, f"part-{number}").header for number, text in enumerate(texts)]
    assert find(headers) == []
    found = find(headers, dict(enumerate(texts)))
    assert [conflict.parts for conflict in found] == [("part-0", "part-2")]
