"""The hash of leading messages, and the header that holds it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import PrefixError
from foreword.prefix.header import StandsFor, read_header
from foreword.prefix.operations import compose, quantize, shift
from foreword.prefix.stands_for import leading_hashes, messages_hash
from foreword.types import Message

TALK = (
    Message(role="system", content='Be <b>brief</b>: é \u2028 "q" \\ \n'),
    Message(role="user", content="1"),
    Message(role="assistant", content=""),
)
STANDS_FOR = StandsFor(messages=messages_hash(TALK), count=3, prompt="rules@v2")


def test_it_is_the_sha256_of_canonical_json():
    text = '[{"content":"Be <b>brief</b>: é \u2028 \\"q\\" \\\\ \\n","role":"system"},{"content":"1","role":"user"}]'
    assert messages_hash(TALK[:2]) == hashlib.sha256(text.encode()).hexdigest()


def test_each_beginning_has_its_own():
    hashes = leading_hashes(TALK, {1, 2, 3, 4, 0})
    assert hashes == {count: messages_hash(TALK[:count]) for count in (1, 2, 3)}
    assert len(set(hashes.values())) == 3
    assert leading_hashes(TALK, {3}) == {3: messages_hash(TALK)} and leading_hashes((), {1}) == {}


@pytest.mark.parametrize(
    "other",
    [
        (Message(role="user", content=TALK[0].content), *TALK[1:]),
        (Message(role="system", content=TALK[0].content.rstrip()), *TALK[1:]),
        (TALK[0], Message(role="user", content='1","role":"user"},{"content":"'), TALK[2]),
        (TALK[1], TALK[0], TALK[2]),
    ],
)
def test_other_messages_have_another(other: tuple[Message, ...]):
    assert messages_hash(other) != messages_hash(TALK)


def test_text_that_is_no_unicode_has_one_too():
    assert messages_hash((Message(role="user", content="\ud800"),)) != messages_hash((Message(role="user", content="\ud801"),))


def test_a_file_keeps_it(make_prefix: Any, tmp_path: Path):
    make_prefix(stands_for=STANDS_FOR).save(tmp_path / "new")
    assert read_header(tmp_path / "new").stands_for == STANDS_FOR
    make_prefix().save(tmp_path / "plain")
    assert read_header(tmp_path / "plain").stands_for is None


def test_a_header_that_knows_nothing_of_it_is_read(make_prefix: Any):
    header = make_prefix().header
    text = header.model_dump_json(exclude={"stands_for"})
    assert "stands_for" not in text and type(header).model_validate_json(text, strict=True) == header


@pytest.mark.parametrize("change", [{"messages": "short"}, {"count": 0}, {"prompt": ""}, {"more": 1}])
def test_what_it_cannot_be(make_prefix: Any, change: dict[str, Any]):
    with pytest.raises(PrefixError, match="stands_for"):
        make_prefix(stands_for=STANDS_FOR.model_dump() | change)


def test_what_is_made_from_it_stands_for_nothing(make_prefix: Any):
    prefix = make_prefix(stands_for=STANDS_FOR)
    made = (quantize(prefix), shift(prefix, 3), compose([prefix, make_prefix()], "a+b"))
    assert [other.header.stands_for for other in made] == [None] * 3
    assert prefix.rename("other").header.stands_for == STANDS_FOR
