"""`calculator`: exact arithmetic on one expression.

Whole numbers and fractions stay exact however long the way; only roots and functions that have no exact value are rounded. Nothing is
evaluated as Python: the expression's tree is walked, and every number on the way is bounded.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from foreword.errors import ToolError
from foreword.prompting.tool import Tool

MOST_EXPRESSION = 1_000
"""Characters of an expression."""
MOST_BITS = 13_000
"""Bits of a number's numerator and denominator; about 3,900 digits."""
MOST_DIGITS = 40
"""Digits of a fraction that is written out in full."""

Number = Fraction | float

_LITERAL = re.compile(r"(?P<digits>[\d_]+\.?[\d_]*|\.[\d_]+)(?:[eE](?P<exponent>[+-]?\d+))?")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "$": "", "€": ""})


def make() -> Tool:
    """The tool; it takes no settings."""
    return Tool(
        name="calculator",
        description=(
            "Computes an arithmetic expression exactly. Operators: + - * / // % ** and parentheses. "
            f"Functions: {', '.join(sorted(_FUNCTIONS))}. Constants: pi, e. Angles are in radians."
        ),
        parameters={
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "For instance (17 + 5) / 4 or sqrt(2)"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
        call=_call,
    )


async def _call(arguments: Mapping[str, Any]) -> str:
    expression = arguments.get("expression")
    if not isinstance(expression, str | int | float) or set(arguments) != {"expression"}:
        raise ToolError('`calculator` takes one argument, a text: {"expression": "6 * 7"}.')
    return computed(str(expression))


def computed(expression: str) -> str:
    """The value of an expression as text: `0.5`, `0.3333333333333333 (exactly 1/3)`, `1.4142135623731 (rounded)`.

    Raises:
        ToolError: it cannot be read, has no value, or a number on the way is too large.
    """
    if len(expression) > MOST_EXPRESSION:
        raise ToolError(f"The expression has {len(expression):,} characters; at most {MOST_EXPRESSION:,} are taken. Compute it in parts.")
    text = expression.translate(_SIGNS).strip().rstrip("=? ").strip()
    if not re.search("[A-Za-z]", text):  # in `max(1,200)` the comma parts two arguments
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    try:
        return _told(_value(ast.parse(text, mode="eval").body, text))
    except (SyntaxError, RecursionError, MemoryError):
        raise ToolError(
            f"`{expression[:200]}` is no arithmetic expression. Write numbers, operators and functions: (17 + 5) / 4."
        ) from None
    except ZeroDivisionError:
        raise ToolError(f"`{expression[:200]}` divides by zero.") from None
    except (ValueError, OverflowError, TypeError) as error:
        raise ToolError(f"`{expression[:200]}` has no value: {error}.") from None


def _value(node: ast.expr, text: str) -> Number:
    if isinstance(node, ast.Constant):
        return _literal(ast.get_source_segment(text, node) or "", node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand, text))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _bounded(_BINARY[type(node.op)](_value(node.left, text), _value(node.right, text)))
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function is None:
            raise ToolError(f"There is no function `{node.func.id[:40]}`. Functions: {', '.join(sorted(_FUNCTIONS))}.")
        return _bounded(function(*[_value(argument, text) for argument in node.args]))
    what = ast.get_source_segment(text, node) or type(node).__name__
    raise ToolError(f"`{what[:80]}` has no place in an expression, which has numbers, operators, pi, e and functions such as sqrt(2).")


def _literal(written: str, value: object) -> Fraction:
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    found = _LITERAL.fullmatch(written)
    if found is None:
        raise ToolError(f"`{written[:40]}` is no number.")
    if abs(int(found["exponent"] or "0")) > MOST_BITS // 4:
        raise OverflowError(f"the number {written[:40]} is too large or too small")
    return Fraction(written.replace("_", ""))


def _bounded(value: Any) -> Number:
    if isinstance(value, int):
        value = Fraction(value)
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
            raise OverflowError("a number on the way has thousands of digits")
        return value
    if isinstance(value, complex):
        raise ValueError("a root of a negative number is no real number")
    if not math.isfinite(value):
        raise OverflowError("a number on the way is too large")
    return value


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            return _whole_power(base, exponent.numerator)
        if exponent.denominator == 2:
            return _power(_root(base), Fraction(exponent.numerator))
    return float(base) ** float(exponent)


def _whole_power(base: Fraction, exponent: int) -> Fraction:
    if abs(base) == 1:
        return base if exponent % 2 else Fraction(1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
    if base and bits > MOST_BITS:
        raise OverflowError("a power on the way has thousands of digits")
    return base**exponent


def _root(value: Number) -> Number:
    if value < 0:
        raise ValueError("a root of a negative number is no real number")
    if isinstance(value, Fraction):
        numerator, denominator = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if numerator**2 == value.numerator and denominator**2 == value.denominator:
            return Fraction(numerator, denominator)
    return math.sqrt(value)


def _round(value: Number, digits: Number = Fraction(0)) -> Number:
    places = _whole(digits, most=100)
    return Fraction(round(Fraction(value) * Fraction(10) ** places)) / Fraction(10) ** places


def _whole(value: Number, *, most: int) -> int:
    if value != int(value):
        raise ValueError(f"{float(value):g} is no whole number")
    if abs(value) > most:
        raise OverflowError(f"{float(value):g} is too large here; at most {most:,} is taken")
    return int(value)


def _of_wholes(function: Callable[..., int], *, most: int) -> Callable[..., int]:
    return lambda *values: function(*[_whole(value, most=most) for value in values])


def _of_floats(function: Callable[..., float]) -> Callable[..., float]:
    return lambda *values: function(*[float(value) for value in values])


def _many(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: function(values)


_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "acos": _of_floats(math.acos),
    "asin": _of_floats(math.asin),
    "atan": _of_floats(math.atan),
    "ceil": math.ceil,
    "comb": _of_wholes(math.comb, most=5_000),
    "cos": _of_floats(math.cos),
    "exp": _of_floats(math.exp),
    "factorial": _of_wholes(math.factorial, most=1_400),
    "floor": math.floor,
    "gcd": _of_wholes(math.gcd, most=1 << MOST_BITS),
    "lcm": _of_wholes(math.lcm, most=1 << 60),
    "ln": _of_floats(math.log),
    "log": _of_floats(math.log),
    "log10": _of_floats(math.log10),
    "log2": _of_floats(math.log2),
    "max": _many(max),
    "min": _many(min),
    "round": _round,
    "sin": _of_floats(math.sin),
    "sqrt": _root,
    "sum": _many(sum),
    "tan": _of_floats(math.tan),
}


def _told(value: Number) -> str:
    if isinstance(value, float):
        return f"{value:.14g} (rounded)"
    if value.denominator == 1:
        return str(value.numerator)
    twos, rest = 0, value.denominator
    while rest % 2 == 0:
        twos, rest = twos + 1, rest // 2
    fives = 0
    while rest % 5 == 0:
        fives, rest = fives + 1, rest // 5
    places = max(twos, fives)
    if rest == 1 and places <= MOST_DIGITS:
        digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
        return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    exactly = f"{value.numerator}/{value.denominator}"
    return f"{float(value)!r} (exactly {exactly})" if len(exactly) <= 2 * MOST_DIGITS else f"{float(value)!r} (rounded)"
