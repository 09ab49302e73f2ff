"""A data set keeps order and labels, and its hash follows its content alone."""

from __future__ import annotations

import pytest

from foreword.data.dataset import Dataset
from foreword.errors import DataError
from foreword.types import Example, Message


def example(prompt: str, completion: str = "yes", *, line: int = 0, user: str | None = None) -> Example:
    return Example(messages=(Message(role="user", content=prompt),), completions=(completion,), line=line, user=user)


def test_kind_follows_the_labels():
    assert Dataset.of([example("a")]).kind == "generation"
    assert Dataset.of([example("a")], labels=["no", "yes"]).kind == "classification"


def test_hash_ignores_line_numbers_and_path_but_not_content_or_order():
    base = Dataset.of([example("a", line=1), example("b", line=2)])
    assert Dataset.of([example("a", line=7), example("b", line=9)], path="other").sha256 == base.sha256
    different = [
        [example("b"), example("a")],
        [example("a"), example("b", "no")],
        [example("a"), example("b", user="kim")],
        [example("a")],
    ]
    assert len({base.sha256, *(Dataset.of(rows).sha256 for rows in different)}) == 5


def test_hash_tells_a_boundary_from_its_text():
    joined = Example(messages=(Message(role="user", content="a"),), completions=('b","c',))
    apart = Example(messages=(Message(role="user", content="a"),), completions=("b", "c"))
    assert Dataset.of([joined]).sha256 != Dataset.of([apart]).sha256


def test_limit_takes_the_first_and_keeps_labels():
    data = Dataset.of([example(str(i)) for i in range(5)], labels=["no", "yes"])
    assert [row.prompt for row in data.limit(2)] == ["0", "1"]
    assert data.limit(2).labels == ("no", "yes")
    assert data.limit(2).sha256 == Dataset.of(data.examples[:2]).sha256
    assert data.limit(9) is data


def test_limit_refuses_nothing():
    with pytest.raises(DataError, match="at least 1"):
        Dataset.of([example("a")]).limit(0)


def test_shuffle_depends_on_the_seed_alone():
    data = Dataset.of([example(str(i)) for i in range(50)])
    assert data.shuffled(3) == data.shuffled(3)
    assert data.shuffled(3).examples != data.shuffled(4).examples
    assert sorted(row.prompt for row in data.shuffled(3)) == sorted(row.prompt for row in data)
    assert len(data) == 50
