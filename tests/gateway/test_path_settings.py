"""What a `foreword.toml` may say."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import ConfigError
from foreword.gateway.path_settings import PathSettings, build_settings, read_settings
from foreword.gateway.stage import ORDER

BIG = {"url": "https://a.example/v1", "model": "big-1", "price": {"input_per_million": 0.1, "output_per_million": "0.2"}}
SMALL = {"engine": "echo", "model": "echo", "price": {"machine_hour": 0.3}}

EXAMPLE = """\
[models.small]
engine = "transformers"
model = "smollm2"
price = { machine_hour = "0.40" }

[models.strong]
url = "https://api.openai.com/v1"
model = "gpt-4o"
provider = "openai"
key_env = "OPENAI_API_KEY"
secondary = "small"

[tasks.support]
rules = ["(?i)refund|parcel"]
tiers = ["small:support", "strong"]
cache = { semantic = "bound", bound = 0.02 }
check = { labels = ["billing", "login"], at_least = 1.0 }

[[budgets]]
tenant = "acme"
amount = 12.5

[limits]
per_user = "60/minute"

[store]
ledger = "ledger.sqlite"

[batches]
at_once = 2
"""


def build(**fields: Any) -> PathSettings:
    return build_settings({"models": {"big": BIG, "small": SMALL}, **fields}, source="the test's file")


def test_a_file_says_it_all(tmp_path: Path) -> None:
    (tmp_path / "foreword.toml").write_text(EXAMPLE, encoding="utf-8")
    settings = read_settings(tmp_path / "foreword.toml")
    task = settings.task("support")
    assert (task.name, task.tiers, task.cache.bound, task.check.labels) == (
        "support",
        ("small:support", "strong"),
        0.02,
        ("billing", "login"),
    )
    assert settings.budgets[0].amount == Decimal("12.5") and settings.stages == ORDER and settings.batches.at_once == 2
    # Wherever it is read from.
    assert settings.store.ledger == str(tmp_path / "ledger.sqlite")


def test_money_is_read_as_it_is_written() -> None:
    settings = build(budgets=[{"amount": 0.1}])
    price = settings.model("big").price
    assert price is not None and price.input_per_million == Decimal("0.1") and settings.budgets[0].amount == Decimal("0.1")


def test_a_task_type_without_settings_has_the_defaults() -> None:
    settings = build()
    assert (settings.task("default").tiers, settings.task("x").name, settings.task("x").cache.on) == (("big",), "x", False)
    settings = build(tasks={"default": {"tiers": ["small"], "priority": 3}, "t": {"priority": 1}})
    assert (settings.task("x").tiers, settings.task("x").priority) == (("small",), 3)
    # One with its own settings takes none of the default's.
    assert (settings.task("t").tiers, settings.task("t").priority) == (("big",), 1)


def test_a_model_like_another_is_that_one_in_its_own_way() -> None:
    models = {
        "small": SMALL,
        "careful": {"like": "small", "prompt": "careful", "output_limit": 5},
        "dear": {"like": "small", "price": BIG["price"]},
    }
    settings = build_settings({"models": models}, source="x")
    careful, dear = settings.model("careful"), settings.model("dear")
    assert (careful.engine, careful.model, careful.prompt, careful.output_limit) == ("echo", "echo", "careful", 5)
    assert careful.price == settings.model("small").price and dear.price != careful.price
    assert settings.model("small:support@prod").model == "echo"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"models": {}}, "`models`"),
        ({"colour": 1}, "`colour`"),
        ({"models": {"big": {**BIG, "colour": 1}}}, "`models.big.colour`"),
        ({"models": {"Big": BIG}}, "`Big`"),
        ({"models": {"auto": BIG}}, "`auto`"),
        ({"models": {"big": {"model": "x"}}}, "one of `engine`"),
        ({"models": {"big": {**BIG, "engine": "echo"}}}, "one of `engine`"),
        ({"models": {"big": {"url": "ftp://a", "model": "m"}}}, "`models.big.url`"),
        ({"models": {"big": {"url": "https://a"}}}, "`model` is needed"),
        ({"models": {"small": {**SMALL, "key_env": "KEY"}}}, "`key_env`"),
        ({"models": {"big": {**BIG, "prompt": "p"}}}, "`prompt`"),
        ({"models": {"small": SMALL, "other": SMALL}}, "one model runs"),
        ({"models": {"big": BIG, "a": {"like": "b"}}}, "`models.a.like`"),
        ({"models": {"big": BIG, "a": {"like": "big"}, "b": {"like": "a"}}}, "`models.b.like`"),
        ({"models": {"big": {**BIG, "secondary": "none"}}}, "`models.big.secondary`"),
        ({"models": {"big": {**BIG, "seconds": 0}}}, "`models.big.seconds`"),
        ({"models": {"big": {**BIG, "seconds": float("inf")}}}, "`models.big.seconds`"),
        ({"models": {"big": {**BIG, "price": {"input_per_million": -1, "output_per_million": 1}}}}, "input_per_million"),
        ({"tasks": {"t": {"tiers": ["nope:p"]}}}, "`nope:p`"),
        ({"tasks": {"t": {"rules": ["("]}}}, "regular expression"),
        ({"tasks": {"t": {"check": {"regex": "["}}}}, "regular expression"),
        ({"tasks": {"t": {"check": {"labels": ["one"]}}}}, "`tasks.t.check.labels`"),
        ({"tasks": {"t": {"check": {"judge": "nope"}}}}, "`tasks.t.check.judge`"),
        ({"tasks": {"t": {"assemble": {"summary_model": "nope"}}}}, "`tasks.t.assemble.summary_model`"),
        ({"tasks": {"t": {"cache": {"semantic": "yes"}}}}, "`tasks.t.cache.semantic`"),
        ({"stages": ["intake", "route", "bill"]}, "`infer`"),
        ({"stages": ["intake", "route", "infer", "bill", "bill"]}, "twice"),
        ({"stages": ["route", "intake", "infer", "bill"]}, "`intake` must come before `route`"),
        ({"stages": ["intake", "route", "infer", "bill", "check"]}, "`check` must come before `bill`"),
        ({"stages": ["intake", "route", "infer", "cache", "bill"]}, "`cache` must come before `infer`"),
        ({"stages": ["intake", "route", "infer", "bill"], "budgets": [{"amount": 1}]}, "`budget`"),
        ({"stages": ["intake", "route", "infer", "bill"], "limits": {"per_user": "1/second"}}, "`limit`"),
        ({"budgets": [{"amount": 1}, {"amount": 2}]}, "same tenant"),
        ({"budgets": [{"amount": 1, "task": "nope"}]}, "`nope`"),
        ({"budgets": [{"amount": 0}]}, "amount"),
        ({"store": {"redis": "http://a"}}, "`store.redis`"),
        ({"batches": {"at_once": 0}}, "`batches.at_once`"),
    ],
)
def test_what_cannot_be_is_told_by_its_place(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**fields)
    assert words in str(caught.value) and str(caught.value).startswith("the test's file cannot be used")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"models = [", "no TOML"), (b"\xff\xfe", "not UTF-8"), (b"a = " + b"[" * 5000, "no TOML"), (b"", "`models`")],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "foreword.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_settings(tmp_path / "foreword.toml")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path)
