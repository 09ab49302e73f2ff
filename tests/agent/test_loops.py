"""Circles of one to three steps."""

from __future__ import annotations

import pytest

from foreword.agent.loops import Loops


def verdicts(steps: str) -> list[str]:
    """Each letter is a call that sees the same each time."""
    loops = Loops()
    return [loops.add(step, "{}", "same") for step in steps]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("aaa", ["", "tell", "stop"]),
        ("abab", ["", "", "", "tell"]),
        ("ababa", ["", "", "", "tell", "stop"]),
        ("abcabc", ["", "", "", "", "", "tell"]),
        ("abcdef", [""] * 6),
        ("abcdabcd", [""] * 8),
        ("aabb", ["", "tell", "", "tell"]),
        ("aabbcc", ["", "tell", "", "tell", "", "stop"]),
    ],
)
def test_circles(steps: str, expected: list[str]):
    assert verdicts(steps) == expected


def test_arguments_count_by_what_they_mean():
    loops = Loops()
    loops.add("t", '{"a": 1, "b": 2}', "x")
    assert loops.add("t", '{"b":2,"a":1}', "x") == "tell"
    assert loops.length == 1
    assert Loops().add("t", "no json", "x") == ""


def test_another_observation_is_another_step():
    loops = Loops()
    assert [loops.add("t", "{}", str(number)) for number in range(10)] == [""] * 10
