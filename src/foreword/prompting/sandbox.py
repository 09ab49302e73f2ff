"""A small part of Jinja's language, in which a template can neither reach anything nor run away.

Jinja's sandbox keeps a template from Python's insides, but not from a loop that takes for ever or a text that fills the memory. So here a
template has only what texts are made with (values, conditions, loops, some filters and methods), loops are counted by how much they
make, and so are the characters of every text on the way. What is drawn by chance or read from elsewhere is not there at all: a template
makes the same text of the same values, always.
"""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_TEMPLATE = 1_000_000
"""Characters of one template."""
MOST_NODES = 50_000
"""Parts (values, operators, conditions) of one template."""
MOST_STEPS = 100_000
"""Parts that all rounds of all loops have together."""
MOST_CHARACTERS = 4_000_000
"""Characters, and items of lists, that are made on the way to one text."""
MOST_NUMBER = 1 << 63

_FILTERS = (
    *("capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length", "list", "lower", "max"),
    *("min", "reverse", "sort", "string", "title", "trim", "unique", "upper", "wordcount"),
)
_METHODS = frozenset(
    {
        *("endswith", "get", "items", "keys", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip", "split", "splitlines"),
        *("startswith", "strip", "title", "upper", "values"),
    }
)
_NODES = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign, nodes.Name, nodes.Const, nodes.Tuple),
        *(nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem),
        *(nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Add),
        *(nodes.Sub, nodes.Mod, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    }
)
_COUNTED, _MADE, _JOINED, _WEIGHED = "foreword_counted", "foreword_made", "foreword_joined", "foreword_weighed"
_FILE = "<template>"


class TemplateError(Exception):
    """A template that cannot be read, or that cannot make a text of its values. `line` counts from 1; None where it is not known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@functools.lru_cache(maxsize=64)
def variables(template: str) -> frozenset[str]:
    """The names of what a template takes from outside. The last few templates are remembered: one is asked row after row.

    Raises:
        TemplateError: it cannot be read, or has what no template here may have.
    """
    tree = _parsed(_Sandbox(), template)
    try:
        return frozenset(meta.find_undeclared_variables(tree))
    except TemplateSyntaxError as error:
        raise TemplateError(error.message or "it cannot be read", error.lineno) from None
    except RecursionError:
        raise TemplateError("it is nested too deeply") from None


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text that a template makes of JSON values.

    Raises:
        TemplateError: it cannot be read, fails at these values, or makes too much.
    """
    sandbox = _Sandbox()
    tree = _parsed(sandbox, template)
    try:
        tree = _Guarded().visit(tree).set_environment(sandbox)
        made = sandbox.template_class.from_code(sandbox, sandbox.compile(tree), sandbox.make_globals(None))
        pieces: list[str] = []
        for piece in made.generate(dict(values)):
            sandbox.spend(len(piece))
            pieces.append(piece)
    except Exception as error:  # a template fails with whatever its operators and filters raise
        raise TemplateError(_reason(error), _line(error)) from None
    return "".join(pieces)


def _parsed(sandbox: _Sandbox, template: str) -> nodes.Template:
    if len(template) > MOST_TEMPLATE:
        raise TemplateError(f"it has {len(template):,} characters; at most {MOST_TEMPLATE:,} are allowed")
    try:
        tree = sandbox.parse(template)
        _check(tree)
    except TemplateSyntaxError as error:
        raise TemplateError(error.message or "it cannot be read", error.lineno) from None
    except RecursionError:
        raise TemplateError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:
        # A number of thousands of digits.
        raise TemplateError(str(error)) from None
    return tree


def _check(tree: nodes.Template) -> None:
    """Raises `TemplateError` at the first part that has no place here."""
    for number, node in enumerate(tree.find_all(nodes.Node), start=1):
        if number > MOST_NODES:
            raise TemplateError(f"it has more than {MOST_NODES:,} parts", node.lineno)
        if type(node) not in _NODES:
            what = type(node).__name__.lower()
            raise TemplateError(f"`{what}` has no place in a prompt, which has texts, values, `if`, `for` and `set`", node.lineno)
        if isinstance(node, nodes.Name) and node.name == "self":
            raise TemplateError("`self` has no place in a prompt", node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateError("a loop cannot be recursive", node.lineno)
        if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            raise TemplateError(f"`{node.attr}` cannot be reached from a prompt", node.lineno)
        if isinstance(node, nodes.Call):
            _check_call(node)


def _check_call(node: nodes.Call) -> None:
    called = node.node
    is_range = isinstance(called, nodes.Name) and called.name == "range"
    is_method = isinstance(called, nodes.Getattr) and called.attr in _METHODS
    if not is_range and not is_method:
        raise TemplateError(f"only `range` and methods of texts and tables can be called: {', '.join(sorted(_METHODS))}", node.lineno)


class _Guarded(NodeTransformer):
    """Has every loop counted, and everything weighed that is not made by a filter or an operator."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        weight = 1 + sum(1 for child in node.body for _ in child.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED, nodes.Const(weight, lineno=node.lineno))
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(node, _MADE)

    def visit_List(self, node: nodes.List) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(node, _WEIGHED)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(node, _WEIGHED)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, _WEIGHED) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)


def _filtered(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


class _Sandbox(SandboxedEnvironment):
    """For one text: what is left of its steps and characters is counted here."""

    intercepted_binops = frozenset({"+", "*", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            optimized=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            cache_size=0,
        )
        self._steps, self._characters = MOST_STEPS, MOST_CHARACTERS
        self.globals = {"range": _range}
        self.filters = {name: self._weighed(FILTERS[name]) for name in _FILTERS}
        self.filters |= {"join": self._join, "replace": self._replace, "tojson": self._weighed(_json)}
        self.filters |= {
            _COUNTED: self._counted,
            _MADE: self._weighed(lambda value: value),
            _JOINED: self._join,
            _WEIGHED: self._deeply_weighed,
        }

    def spend(self, characters: int) -> None:
        """Raises `OverflowError` once more is made than may be."""
        self._characters -= characters
        if self._characters < 0:
            raise OverflowError(f"it makes more than {MOST_CHARACTERS:,} characters")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*` and `%`, where what comes out is not too large."""
        if _is_number(left) and _is_number(right):
            found = super().call_binop(context, operator, left, right)
            if abs(found) > MOST_NUMBER:
                raise OverflowError("a number is too large")
            return found
        if operator == "%":
            raise TypeError("`%` takes numbers; join texts with `~`")
        if operator == "*":
            times, what = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(times, int) and isinstance(what, str | list):
                self.spend(len(what) * max(times, 0))
        elif isinstance(left, str | list) and isinstance(right, str | list):
            self.spend(len(left) + len(right))
        made = super().call_binop(context, operator, left, right)
        return self._deeply_weighed(made) if isinstance(made, list) else made

    def _weighed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def weighed(*arguments: Any, **options: Any) -> Any:
            made = function(*arguments, **options)
            if isinstance(made, str | list | dict | tuple):
                self.spend(len(made))
            return made

        return weighed

    def _deeply_weighed(self, value: Any) -> Any:
        """For lists and tables written in the template: one that holds another twice, forty times over, would fill the memory as text."""
        left = [value]
        while left:
            item = left.pop()
            self.spend(1 + len(item) if isinstance(item, str) else 1)
            if isinstance(item, list | tuple):
                left.extend(item)
            elif isinstance(item, dict):
                left.extend(item.keys())
                left.extend(item.values())
        return value

    def _counted(self, items: Iterable[Any], weight: int) -> Iterator[Any]:
        for item in items:
            self._steps -= weight
            if self._steps < 0:
                raise OverflowError(f"its loops take more than {MOST_STEPS:,} steps")
            yield item

    def _join(self, items: Iterable[Any], separator: str = "") -> str:
        texts = []
        for item in items:
            texts.append(str(item))
            self.spend(len(texts[-1]) + len(separator))
        return str(separator).join(texts)

    def _replace(self, text: Any, old: str, new: str) -> str:
        text = str(text)
        self.spend(len(text) + text.count(old) * len(new))
        return text.replace(old, new)


def _range(*bounds: int) -> range:
    """As Python's, within what loops may take."""
    made = range(*bounds)
    # Not `len`, which fails at the longest ones.
    if made and abs(made[-1] - made[0]) // abs(made.step) >= MOST_STEPS:
        raise OverflowError(f"a range has more than {MOST_STEPS:,} numbers")
    return made


def _json(value: Any) -> str:
    if isinstance(value, Undefined):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError | SyntaxError | MemoryError) and not isinstance(error, TemplateSyntaxError):
        return "it is nested too deeply"
    if isinstance(error, SecurityError):
        return f"it reaches for what a prompt may not have ({error})"
    return (str(error) or type(error).__name__).rstrip(".")


def _line(error: Exception) -> int | None:
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
    return lines[-1] if lines else None
