"""Python functions as tools."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from foreword.agent.function_tool import tool
from foreword.errors import ConfigError
from foreword.prompting.tool import Observation, Tool, Tools


class Unit(enum.StrEnum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Place(BaseModel):
    city: str
    title: str = ""


@dataclass
class Forecast:
    warm: bool
    by: Decimal


def weather(place: Place, days: int = 1, unit: Unit = Unit.CELSIUS, kind: Literal["short", "long"] = "short") -> dict[str, Any]:
    """The forecast for a place,
    by the day.

    Args:
        place: where,
            in the world.
        days (int): how many: at most ten.

    Returns:
        A forecast.
    """
    return {"city": place.city, "days": days, "unit": unit, "kind": kind}


def called(made: Tool, arguments: str | dict[str, Any] = "{}") -> Observation:
    return asyncio.run(Tools.of([made]).call(made.name, arguments))


def test_the_model_is_told_what_the_docstring_says() -> None:
    made = tool(weather)
    assert (made.name, made.description) == ("weather", "The forecast for a place,\nby the day.")
    assert made.parameters["required"] == ["place"]
    assert made.parameters["additionalProperties"] is False
    days = made.parameters["properties"]["days"]
    assert days == {"type": "integer", "description": "how many: at most ten.", "default": 1}
    assert made.parameters["properties"]["place"]["description"] == "where, in the world."
    assert made.parameters["properties"]["kind"]["enum"] == ["short", "long"]
    place = made.parameters["$defs"]["Place"]
    assert set(place["properties"]) == {"city", "title"}  # a parameter may be called `title`, titles are left out
    assert "title" not in place
    json.dumps(made.parameters)


def test_arguments_are_made_into_what_the_types_say() -> None:
    found = called(tool(weather), {"place": {"city": "Bern"}, "unit": "f"})
    assert json.loads(found.text) == {"city": "Bern", "days": 1, "unit": "f", "kind": "short"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "`place`: Field required"),
        ({"place": {"city": "Bern"}, "days": "many"}, "`days`: Input should be a valid integer"),
        ({"place": {"city": "Bern"}, "wind": 1}, "`wind`: Extra inputs are not permitted"),
        ({"place": {"town": "Bern"}}, "`place.city`: Field required"),
        ({"place": {"city": "Bern"}, "kind": "tiny"}, "`kind`: Input should be 'short' or 'long'"),
    ],
)
def test_arguments_that_do_not_fit_are_told(arguments: dict[str, Any], said: str) -> None:
    found = called(tool(weather), arguments)
    assert not found.ok
    assert said in found.text


def test_a_few_of_many_problems_are_told() -> None:
    found = called(tool(weather), {str(number): "x" * 1_000 for number in range(100)})
    assert "and 96 more" in found.text
    assert len(found.text) < 1_000


def test_names_that_a_model_class_could_not_have_are_parameters() -> None:
    def odd(schema: str, copy: int, model_config: bool, self: str = "x") -> str:
        """Has odd names."""
        return f"{schema} {copy} {model_config} {self}"

    assert called(tool(odd), {"schema": "a", "copy": 2, "model_config": True}).text == "a 2 True x"


def test_coroutines_are_awaited() -> None:
    async def slow(text: str) -> str:
        """Says it."""
        await asyncio.sleep(0)
        return text

    assert called(tool(slow), {"text": "tea"}) == Observation(text="tea")


@pytest.mark.parametrize("error", [SystemExit(2), TimeoutError("the pump"), RuntimeError("the pump")])
def test_what_a_coroutine_raises_is_told(error: BaseException) -> None:
    async def bad() -> str:
        """Fails."""
        raise error

    found = called(tool(bad))
    assert not found.ok
    assert type(error).__name__ in found.text
    assert "given up" not in found.text


def test_what_a_function_raises_is_told() -> None:
    def bad() -> str:
        """Fails."""
        raise SystemExit("the pump")

    found = called(tool(bad))
    assert (found.ok, found.text) == (False, "`bad` failed: SystemExit: the pump")


def test_a_function_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def hang() -> str:
        """Hangs."""
        release.wait()
        return ""

    found = called(tool(hang, seconds=0.02))
    release.set()
    assert (found.ok, found.text) == (False, "`hang` took longer than 0.02 seconds and was given up.")


def test_a_function_runs_beside_the_event_loop() -> None:
    here = threading.get_ident()

    def where() -> bool:
        """Which thread."""
        return threading.get_ident() == here

    assert called(tool(where)).text == "false"


def test_ten_megabytes_are_cut() -> None:
    def large() -> list[str]:
        """Much."""
        return ["x" * 10_000_000]

    found = called(tool(large, most_characters=100))
    assert found.ok
    assert len(found.text) < 200


def numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("tea", "tea"),
        (None, "null"),
        ({"a": (1, 2)}, '{"a": [1, 2]}'),
        (Forecast(warm=True, by=Decimal("1.50")), '{"warm": true, "by": "1.50"}'),
        ("é", "é"),
        (["é"], '["é"]'),
    ],
)
def test_results_are_told_as_json(value: Any, text: str) -> None:
    def give() -> Any:
        """Gives it."""
        return value

    assert called(tool(give)) == Observation(text=text)


@pytest.mark.parametrize("value", [object(), numbers(), b"\xff\xfe", {1: object()}])
def test_results_without_json_are_told(value: Any) -> None:
    def give() -> Any:
        """Gives it."""
        return value

    found = called(tool(give))
    assert not found.ok
    assert "`give` failed" in found.text


def test_a_method_a_partial_and_a_callable_are_tools_too() -> None:
    class Shop:
        def price(self, item: str) -> str:
            """The price."""
            return f"{item}: 3"

        def __call__(self, item: str) -> str:
            return f"{item}!"

    assert called(tool(Shop().price), {"item": "tea"}).text == "tea: 3"
    assert called(tool(Shop(), name="shop", description="Shouts."), {"item": "tea"}).text == "tea!"
    made = tool(functools.partial(weather, days=3), name="three_days", description="Three days.")
    assert json.loads(called(made, {"place": {"city": "Bern"}}).text)["days"] == 3


def test_a_wrong_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be a tool's name"):
        tool(weather, name="the weather")


def bare(text):  # type: ignore[no-untyped-def]
    """Says it."""


def starred(*texts: str) -> None:
    """Says them."""


def odd(thread: threading.Thread) -> None:
    """Takes what JSON has not."""


def nowhere(text: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Has a type that is not there."""


def silent(text: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (bare, "`text` of `bare` has no type"),
        (starred, "cannot be given by name"),
        (odd, "a type that JSON cannot give"),
        (nowhere, "cannot be read"),
        (silent, "Nothing says what `silent` is for"),
    ],
)
def test_functions_that_can_be_no_tools_are_refused(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tool(function)
