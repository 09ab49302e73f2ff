from typing import Any

import pytest

from foreword.gateway.cache.key import Cacheable, key_of, refused

BODY: dict[str, Any] = {
    "model": "small",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a cache?"}],
    "temperature": 0,
}

EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def key(body: dict[str, Any] = BODY, **given: Any) -> Any:
    return key_of(body, **({"tenant": "a", "model": "small@1"} | given))


def asked(question: str, **fields: Any) -> dict[str, Any]:
    return BODY | {"messages": [BODY["messages"][0], {"role": "user", "content": question}]} | fields


def test_equal_requests_have_one_key() -> None:
    assert key() == key(dict(reversed(BODY.items())))
    assert key().question == "What is a cache?"


@pytest.mark.parametrize(
    "given",
    [{"tenant": "b"}, {"model": "small@2"}, {"prefix_versions": ("support@v1",)}, {"prompt_version": "greet@v2"}],
    ids=lambda given: next(iter(given)),
)
def test_another_place_is_another_partition(given: dict[str, Any]) -> None:
    assert key(**given).partition != key().partition
    assert key(**given).exact != key().exact


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": "Be long."}, BODY["messages"][1]]},
        {"messages": [BODY["messages"][0], *EARLIER, BODY["messages"][1]]},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"seed": 3},
        {"stop": ["."]},
        {"logit_bias": {"42": 1}},
        {"a_field_of_tomorrow": True},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_whatever_an_answer_depends_on_parts(fields: dict[str, Any]) -> None:
    assert key(BODY | fields).partition != key().partition


@pytest.mark.parametrize(
    "fields",
    [{"stream": True}, {"stream_options": {"include_usage": True}}, {"user": "u"}, {"metadata": {"a": "b"}}, {"n": 1}, {"top_p": None}],
    ids=lambda fields: next(iter(fields)),
)
def test_how_an_answer_travels_does_not_part(fields: dict[str, Any]) -> None:
    assert key(BODY | fields) == key()


def test_the_last_question_parts_only_the_exact_key() -> None:
    other = key(asked("What is a hash?"))
    assert other.partition == key().partition
    assert other.exact != key().exact


def test_no_field_can_be_moved_into_another() -> None:
    one = key_of({"messages": []}, tenant="a", model="bc")
    assert one != key_of({"messages": []}, tenant="ab", model="c")


def test_a_turn_that_is_no_text_is_looked_up_exactly_only() -> None:
    picture = BODY | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
    assert key(picture).question == ""
    assert key(BODY | {"messages": [BODY["messages"][1], {"role": "assistant", "content": "It is"}]}).question == ""
    parts = BODY | {"messages": [BODY["messages"][0], {"role": "user", "content": [{"type": "text", "text": "What is a cache?"}]}]}
    assert key(parts).question == "What is a cache?"


def test_half_a_character_has_a_key() -> None:
    assert len(key(asked("\ud800")).exact) == 64


def test_texts_stay_out_of_what_is_printed() -> None:
    assert "cache" not in repr(key()) and "brief" not in repr(key())


@pytest.mark.parametrize(
    ("fields", "rule", "why"),
    [
        ({"temperature": 0}, Cacheable(temperature="zero"), None),
        ({"temperature": None}, Cacheable(temperature="zero"), "drawn answers"),
        ({"temperature": None}, Cacheable(), None),
        ({"temperature": 0.7}, Cacheable(), "drawn answers"),
        ({"temperature": 0.7}, Cacheable(temperature="any"), None),
        ({"temperature": 0.7, "seed": 1}, Cacheable(), None),
        ({"n": 2}, Cacheable(), "several answers"),
        ({"n": 2}, Cacheable(several=True), None),
        ({"logprobs": True}, Cacheable(), "logprobs"),
        ({"top_logprobs": 2}, Cacheable(), "logprobs"),
        ({"logprobs": True}, Cacheable(logprobs=True), None),
    ],
)
def test_which_requests_may_be_answered_again(fields: dict[str, Any], rule: Cacheable, why: str | None) -> None:
    assert refused(BODY | fields, rule) == why
