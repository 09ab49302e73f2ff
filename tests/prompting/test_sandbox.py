"""The templates' language: what it can do, what it cannot reach, and that it ends."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.prompting import sandbox
from foreword.prompting.sandbox import MOST_TEMPLATE, TemplateError, render, variables

VALUES = {"x": "X", "d": {"a": 1, "b": [1, "é"]}, "items": ["one", "two"]}


def text(template: str) -> str:
    return render(template, {name: VALUES[name] for name in variables(template)})


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("plain $ {text}", "plain $ {text}"),
        ("  kept  \n\n", "  kept  \n\n"),
        ("{{ x }}, {{ x|lower }}, {{ x.lower() }}", "X, x, x"),
        ("<b>{{ x ~ '<' }}</b>", "<b>X<</b>"),
        ("{% for item in items %}\n- {{ item }}\n{% endfor %}\nend", "- one\n- two\nend"),
        ("{% for item in items %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=[1, 'é'];"),
        ("{% if x == 'X' and 3 in [1, 2, 3] %}yes{% else %}no{% endif %}", "yes"),
        ("{% set n = 2 * 3 + 1 %}{{ n % 4 }} {{ '-' * n }}", "3 -------"),
        ("{{ items|join(', ') }} {{ d|tojson }} {{ x|replace('X', 'Y') }}", 'one, two {"a": 1, "b": [1, "é"]} Y'),
        ("{{ [3, 1, 2]|sort|join }} {{ items|first|title }} {{ items|length }}", "123 One 2"),
        ("{{ d.nothing|default('none') }} {{ d.a is defined }} {{ 'a' if x else 'b' }}", "none True a"),
        ("{% raw %}{{ as it is }}{% endraw %} {{ '{{' }}", "{{ as it is }} {{"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "012"),
        ("{# a note #}x", "x"),
        ("<|im_end|> {{ '<|im_start|>' }}", "<|im_end|> <|im_start|>"),
    ],
)
def test_what_it_can_do(template: str, made: str):
    assert text(template) == made


def test_the_same_values_make_the_same_text():
    assert "random" not in sandbox._FILTERS and "lipsum" not in sandbox._Sandbox().globals
    template = "{% for item in items|unique|list %}{{ item }}{% endfor %}"
    assert {text(template) for _ in range(5)} == {"onetwo"}


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("none", set()),
        ("{{ a.b }} {{ c[d] }}", {"a", "c", "d"}),
        ("{% for a in b %}{{ a }}{{ loop.index }}{% endfor %}", {"b"}),
        ("{% set a = b %}{{ a }}", {"b"}),
        ("{% if false %}{{ a }}{% endif %}", {"a"}),
        ("{{ range(3) }}", set()),
    ],
)
def test_variables(template: str, names: set[str]):
    assert variables(template) == names


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("a\n{{ x y }}", 2, "expected token"),
        ("{{ ", 1, "unexpected 'end of template'"),
        ("\n\n{% if x %}", 3, "endif"),
        ("{{ x|nothing }}", 1, "No filter named 'nothing'"),
        ("{{ x.__class__ }}", 1, "`__class__` cannot be reached"),
        ("\n{{ x._private }}", 2, "`_private` cannot be reached"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 1, "can be called"),
        ("{{ x|attr('__class__') }}", 1, "No filter named 'attr'"),
        ("{{ lipsum() }}", 1, "can be called"),
        ("{{ cycler.__init__.__globals__ }}", 1, "`__globals__` cannot be reached"),
        ("{{ x.format(1) }}", 1, "can be called"),
        ("{{ 'x'.center(10000000000) }}", 1, "can be called"),
        ("{{ self }}", 1, "`self` has no place"),
        ("{{ 10 ** 1000 }}", 1, "`pow` has no place"),
        ("{% macro f() %}{% endmacro %}", 1, "`macro` has no place"),
        ("{% include '/etc/passwd' %}", 1, "`include` has no place"),
        ("{% import 'os' as os %}", 1, "`import` has no place"),
        ("{% extends 'x' %}", 1, "`extends` has no place"),
        ("{% block a %}{% endblock %}", 1, "`block` has no place"),
        ("{% set a %}x{% endset %}", 1, "`assignblock` has no place"),
        ("{% for a in items recursive %}{% endfor %}", 1, "recursive"),
        ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", None, "nested too deeply"),
        ("{{ " + "9" * 5_000 + " }}", None, "digits"),
        ("{{ [" + "1, " * 60_000 + "] }}", 1, "more than 50,000 parts"),
        ("x" * (MOST_TEMPLATE + 1), None, "at most 1,000,000"),
    ],
)
def test_what_has_no_place_is_said_before_anything_is_made(template: str, line: int | None, words: str):
    with pytest.raises(TemplateError, match=words) as refused:
        variables(template)
    assert refused.value.line == line
    with pytest.raises(TemplateError, match=words):
        render(template, VALUES)


LOOP = "{% for i in range(100000) %}"
BOMBS = {
    "loops in loops": (LOOP * 3 + "x" + "{% endfor %}" * 3, "its loops take more than"),
    "a loop that makes nothing": (LOOP * 2 + "{% if i == -1 %}x{% endif %}" + "{% endfor %}" * 2, "its loops take more than"),
    "a loop around a text": ("{% for i in range(20000) %}" + "x" * 1_000 + "{% endfor %}", "4,000,000 characters"),
    "a long range": ("{% for i in range(10000000000000000000000000) %}{% endfor %}", "more than 100,000 numbers"),
    "texts that double": ("{% set a = 'aaaaaaaa' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}", "4,000,000 characters"),
    "sums that double": ("{% set a = 'aaaaaaaa' %}" + "{% set a = a + a %}" * 60 + "{{ a }}", "4,000,000 characters"),
    "lists that double": ("{% set a = [1] %}" + "{% set a = a + a %}" * 60 + "{{ a }}", "4,000,000 characters"),
    "lists of themselves": ("{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}", "4,000,000 characters"),
    "tables of themselves": ("{% set a = 1 %}" + "{% set a = {'x': a, 'y': a} %}" * 60 + "{{ a }}", "4,000,000 characters"),
    "a large repetition": ("{{ 'x' * 10000000000 }}", "4,000,000 characters"),
    "a list of large texts": ("{{ ['x' * 1000000] * 1000 }}", "4,000,000 characters"),
    "a large number": ("{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}", "a number is too large"),
    "a wide format": ("{{ '%9999999999d' % 1 }}", "takes numbers"),
    "a long join": ("{{ range(100000)|join('x' * 1000) }}", "4,000,000 characters"),
    "a long replacement": ("{{ ('x' * 100000)|replace('x', 'x' * 100000) }}", "4,000,000 characters"),
    "many copies": ("{% for i in range(9000) %}{{ ('x' * 1000000)|upper|length }}{% endfor %}", "4,000,000 characters"),
    "blocks in blocks": ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "nested too deeply"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_bounded(bomb: str):
    template, words = BOMBS[bomb]
    with pytest.raises(TemplateError, match=words):
        render(template, {})


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("a\n\n{{ 1 / 0 }}", 3, "division by zero"),
        ("{{ x['__class__'] }}", 1, "reaches for what a prompt may not have"),
        ("{{ x['__class__']['__mro__'] }}", 1, "reaches for what a prompt may not have"),
        ("\n{{ d.nothing }}", 2, "has no attribute 'nothing'"),
        ("{{ x + 1 }}", 1, "str"),
        ("{% for a in 3 %}{% endfor %}", 1, "not iterable"),
        ("{{ nobody }}", 1, "'nobody' is undefined"),
        ("{{ nobody|tojson }}", 1, "'nobody' is undefined"),
        ("{{ d.items }}{{ d['items']() }}", 1, "can be called"),
    ],
)
def test_what_fails_at_its_values(template: str, line: int, words: str):
    with pytest.raises(TemplateError, match=words) as failed:
        render(template, VALUES)
    assert failed.value.line == line


def test_values_are_not_changed():
    values: dict[str, Any] = {"items": ["one"]}
    with pytest.raises(TemplateError, match="can be called"):
        render("{{ items.append('two') }}", values)
    assert render("{{ items + ['two'] }}", values) == "['one', 'two']" and values == {"items": ["one"]}
