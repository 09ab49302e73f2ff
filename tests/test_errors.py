"""The one tree of errors."""

from __future__ import annotations

import inspect
import re

import pytest

from foreword import errors


def classes():
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def drawn_parents() -> dict[str, str]:
    """Child to parent, as the docstring draws them."""
    parents, path = {}, []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ├└─]*)(\w+)(?:  |$)", line)
        if found:
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            if depth:
                parents[found[2]] = path[-2]
    return parents


def test_the_docstring_is_the_tree():
    drawn = drawn_parents()
    assert drawn == {name: value.__bases__[0].__name__ for name, value in classes().items() if name != "ForewordError"}
    assert drawn["NonFiniteLoss"] == "TuningError"


@pytest.mark.parametrize("name", sorted(classes()))
def test_every_error_can_be_caught_as_one(name):
    assert issubclass(classes()[name], errors.ForewordError)
    assert classes()[name].__doc__


def test_room_is_unknown_unless_it_is_told():
    assert errors.WindowError("too long").room is None
    assert errors.WindowError("too long", room=0).room == 0


def test_a_mismatch_names_each_field():
    error = errors.PrefixMismatch("e2e", {"weights": ("a" * 4, "b" * 4), "tokenizer": ("c", "d")})
    assert error.differences == {"weights": ("aaaa", "bbbb"), "tokenizer": ("c", "d")}
    message = str(error)
    assert "`e2e`" in message
    assert "weights: prefix has 'aaaa', model has 'bbbb'" in message and "tokenizer: prefix has 'c', model has 'd'" in message
    assert message.splitlines()[-1].startswith("Load the model it was made for")
