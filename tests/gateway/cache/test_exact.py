import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from foreword.errors import ConfigError
from foreword.gateway.cache.exact import OVERHEAD, CachedAnswer, MemoryStore, Selection


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def answer(body: bytes = b"yes", **given: Any) -> CachedAnswer:
    return CachedAnswer(**({"tenant": "a", "body": body, "model": "small", "created": 1_000.0} | given))


def held(*answers: CachedAnswer, **given: Any) -> tuple[MemoryStore, Callable[..., Any], Clock]:
    """A store with answers under k0, k1, ..., a way to ask it, and its clock."""
    clock = Clock()
    store = MemoryStore(clock=clock, **given)
    for number, one in enumerate(answers):
        asyncio.run(store.put(f"k{number}", one))

    def get(key: str, tenant: str = "a", stale: bool = False) -> Any:
        return asyncio.run(store.get(key, tenant=tenant, stale=stale))

    return store, get, clock


def test_what_was_put_comes_back() -> None:
    _, get, clock = held(answer())
    clock.now += 5
    found = get("k0")
    assert (found.answer, found.age, found.stale) == (answer(), 5, False)
    assert get("k1") is None


def test_another_tenant_gets_nothing_by_any_key() -> None:
    _, get, _ = held(answer())
    assert get("k0", tenant="b") is None
    assert get("k0") is not None


def test_past_its_time_an_answer_comes_only_to_those_who_take_a_stale_one() -> None:
    store, get, clock = held(answer(ttl=60.0), keep_stale=100.0)
    clock.now += 60
    assert not get("k0").stale
    clock.now += 1
    assert get("k0") is None
    assert get("k0", stale=True).stale
    clock.now += 100
    assert get("k0", stale=True) is None
    assert len(store) == store.bytes == 0


def test_without_a_time_an_answer_stays_fresh() -> None:
    _, get, clock = held(answer())
    clock.now += 1e9
    assert not get("k0").stale


def test_a_clock_set_back_makes_no_negative_age() -> None:
    _, get, clock = held(answer(ttl=1.0))
    clock.now -= 50
    assert get("k0").age == 0


def test_the_least_recently_used_make_room() -> None:
    store, get, _ = held(answer(), answer(), most_bytes=2 * (OVERHEAD + 3))
    get("k0")
    asyncio.run(store.put("new", answer()))
    assert get("k1") is None
    assert get("k0") is not None and get("new") is not None
    assert store.bytes == 2 * (OVERHEAD + 3)


def test_what_is_put_again_takes_no_more_room() -> None:
    store, get, _ = held(answer())
    before = store.bytes
    asyncio.run(store.put("k0", answer(b"no!")))
    assert store.bytes == before and get("k0").answer.body == b"no!"


def test_an_answer_larger_than_the_cache_drives_nothing_out() -> None:
    store, get, _ = held(answer(), most_bytes=2 * OVERHEAD)
    asyncio.run(store.put("big", answer(b"x" * 4 * OVERHEAD)))
    assert get("big") is None and get("k0") is not None
    assert len(store) == 1


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (Selection(tag="news"), {"k1", "k2"}),
        (Selection(model="small"), {"k2"}),
        (Selection(prompt_version="greet@v1"), {"k0", "k2"}),
        (Selection(prefix_version="support@v3"), {"k0", "k1"}),
        (Selection(tenant="a", model="large"), {"k0", "k1", "k2"}),
        (Selection(tenant="b"), {"k0", "k1"}),
    ],
)
def test_answers_are_dropped_by_what_they_were_made_with(selection: Selection, left: set[str]) -> None:
    store, get, _ = held(
        answer(tags=frozenset({"news"})),
        answer(prompt_version="greet@v1"),
        answer(tenant="b", model="large", prefix_versions=("tone@v1", "support@v3")),
    )
    dropped = asyncio.run(store.invalidate(selection))
    assert {key for key in ("k0", "k1", "k2") if get(key) or get(key, tenant="b")} == left
    assert dropped == 3 - len(left)


def test_nothing_named_drops_nothing() -> None:
    with pytest.raises(ConfigError, match="Name a tenant"):
        Selection()


def test_sizes_below_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 or more"):
        MemoryStore(most_bytes=-1)
