from typing import Any

import pytest

from foreword.gateway.cache.admission import MOST_CHARACTERS, Admission, Outcome


def outcome(**given: Any) -> Outcome:
    return Outcome(**({"finish_reasons": ["stop"], "question": ["What is 2 + 2?"], "answer": ["4"]} | given))


def test_a_whole_answer_is_kept() -> None:
    assert Admission().refused(outcome()) is None
    assert Admission().refused(outcome(passed=True)) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"status": 500}, "error"),
        ({"status": 429}, "error"),
        ({"finish_reasons": ["length"]}, "not whole"),
        ({"finish_reasons": ["stop", "length"]}, "not whole"),
        ({"finish_reasons": [None]}, "not whole"),
        ({"finish_reasons": []}, "not whole"),
        ({"finish_reasons": ["content_filter"]}, "not whole"),
        ({"flagged": True}, "flagged"),
        ({"passed": False}, "failed its check"),
        ({"fallback": True}, "another model answered"),
        ({"answer": ["  "]}, "empty"),
        ({"calls_tools": True, "finish_reasons": ["tool_calls"], "answer": []}, "calls tools"),
        ({"question": ["I am a@b.org"]}, "private: email"),
        ({"answer": ["Ask a@b.org or 10.0.0.12"]}, "private: email, ip address"),
        ({"answer": ["x" * (MOST_CHARACTERS + 1)]}, "too long to look through"),
    ],
)
def test_what_is_not_kept(given: dict[str, Any], why: str) -> None:
    assert Admission().refused(outcome(**given)) == why


def test_tool_calls_are_kept_where_the_rule_says_so() -> None:
    calls = outcome(calls_tools=True, finish_reasons=["tool_calls"], answer=[])
    assert Admission(tool_calls=True).refused(calls) is None


def test_another_finder_takes_the_place_of_the_patterns() -> None:
    class Names:
        def kinds(self, text: str) -> frozenset[str]:
            return frozenset({"name"} if "Ada" in text else ())

    assert Admission(private=Names()).refused(outcome(question=["I am Ada"])) == "private: name"
    assert Admission(private=Names()).refused(outcome(question=["I am a@b.org"])) is None
