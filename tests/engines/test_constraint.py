"""Constrained decoding: whatever is drawn among the allowed tokens, what comes out fits the constraint."""

from __future__ import annotations

import functools
import json
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from foreword.engines._constraint import LONGEST_VALUE, ConstraintCompiler, Matcher
from foreword.errors import ConstraintError, ServingError
from foreword.types import Constraint

pytest.importorskip("llguidance", reason="the extra `serve` (package llguidance) is not installed")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "score": {"type": "number"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "🙂"]}, "maxItems": 3},
        "left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
    "$defs": {"leaf": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}},
}
TREE = {
    "$defs": {"t": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "boolean"}]}, "maxItems": 2}},
    "$ref": "#/$defs/t",
}
SCHEMAS = [PERSON, TREE, {"const": {"a": [1, None]}}, {"type": "string", "pattern": "^[a-c]{2,4}$"}, {"type": "integer", "multipleOf": 7}]
EXPRESSIONS = [r"[a-z]{3,8}", r"(ab|cd)+", r"[0-9]{4}-[0-9]{2}", r"", r"(yes|no)( [a-zé🙂]{1,3})?", r".{0,5}", r"^[A-C]+$", r"a/b\"c\\"]
CHOICES = [["yes", "no", "maybe"], ["a", "ab", "abc"], ["", "x"], ["<|im_end|>", 'é "q" \n \\ 🙂', "/a/i", "{{%}}"], ["only"]]


def compiler_of(tokenizer: Any, **fields: Any) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer, len(tokenizer), {tokenizer.eos_token_id}, **fields)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_models.build_tokenizer("llama")


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> ConstraintCompiler:
    return compiler_of(tokenizer)


def of(kind: Any, value: Any = "") -> Constraint:
    return Constraint(kind=kind, value=value if isinstance(value, str) else json.dumps(value))


@functools.cache
def closing(tokenizer: Any) -> torch.Tensor:
    """Which tokens only close something in JSON."""
    return torch.tensor(
        [bool(re.fullmatch(r'[]}"]+', text)) for text in tokenizer.batch_decode([[token] for token in range(len(tokenizer))])]
    )


class Walker:
    """Draws at random among the allowed tokens, stopping and closing more often than not so that walks end."""

    def __init__(self, tokenizer: Any, stop_ids: set[int], seed: int) -> None:
        self._tokenizer, self._stop_ids, self._random = tokenizer, stop_ids, random.Random(seed)
        self._closing = closing(tokenizer)

    def walk(self, matcher: Matcher, most: int = 200) -> str | None:
        """The text of one finished walk; None where it did not end."""
        tokens: list[int] = []
        for _ in range(most):
            allowed = matcher.allowed()
            assert allowed.shape == (len(self._tokenizer),) and allowed.dtype == torch.bool
            stops = {token for token in self._stop_ids if allowed[token]}
            assert stops == (self._stop_ids if matcher.may_stop else set()), "the end is allowed exactly where the answer is complete"
            if matcher.finished:
                assert set(allowed.nonzero()[:, 0].tolist()) == self._stop_ids
            token = self._draw(allowed)
            matcher.accept(token)
            assert matcher.failure is None
            if token in self._stop_ids:
                assert matcher.finished
                return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            tokens.append(token)
        return None

    def _draw(self, allowed: torch.Tensor) -> int:
        likely = allowed.clone()
        if self._random.random() < 0.5 and (allowed & self._closing).any():
            likely &= self._closing
        return self._random.choice(likely.nonzero()[:, 0].tolist())


def finished_walks(compiler: ConstraintCompiler, tokenizer: Any, constraint: Constraint, *, stop_ids: set[int], walks: int) -> list[str]:
    grammar = compiler.compile(constraint)
    found = [Walker(tokenizer, stop_ids, seed).walk(grammar.start()) for seed in range(walks)]
    texts = [text for text in found if text is not None]
    assert len(texts) >= walks // 3, "too few walks ended to prove anything"
    return texts


def check_schema(schema: Any, texts: list[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    for text in texts:
        validator.validate(json.loads(text))


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_walks_fit_the_schema(compiler, tokenizer, schema):
    check_schema(schema, finished_walks(compiler, tokenizer, of("json-schema", schema), stop_ids={tokenizer.eos_token_id}, walks=30))


def test_walks_are_json_objects(compiler, tokenizer):
    for text in finished_walks(compiler, tokenizer, of("json-object"), stop_ids={tokenizer.eos_token_id}, walks=30):
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_walks_match_the_whole_expression(compiler, tokenizer, expression):
    for text in finished_walks(compiler, tokenizer, of("regex", expression), stop_ids={tokenizer.eos_token_id}, walks=30):
        assert re.fullmatch(expression, text)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_walks_are_one_of_the_choices_and_all_are_reached(compiler, tokenizer, choices):
    texts = finished_walks(compiler, tokenizer, of("choice", choices), stop_ids={tokenizer.eos_token_id}, walks=40)
    assert len(texts) == 40 and set(texts) == set(choices)


def test_the_default_model(smollm2):
    """A real vocabulary of 49,152 tokens, with two tokens that end an answer."""
    tokenizer, stop_ids = smollm2.engine.tokenizer, {0, 2}
    compiler = ConstraintCompiler(tokenizer, len(tokenizer), stop_ids)
    for schema in (PERSON, TREE):
        check_schema(schema, finished_walks(compiler, tokenizer, of("json-schema", schema), stop_ids=stop_ids, walks=15))
    for expression in EXPRESSIONS[:5]:
        for text in finished_walks(compiler, tokenizer, of("regex", expression), stop_ids=stop_ids, walks=10):
            assert re.fullmatch(expression, text)
    for choices in CHOICES:
        assert set(finished_walks(compiler, tokenizer, of("choice", choices), stop_ids=stop_ids, walks=25)) <= set(choices)


# --- ends and dead ends -----------------------------------------------------------------------------------------


def test_a_complete_answer_that_nothing_can_follow_is_finished_at_once(compiler, tokenizer):
    matcher = compiler.compile(of("choice", ["yes"])).start()
    for token in tokenizer("yes", add_special_tokens=False)["input_ids"]:
        assert not matcher.finished and not matcher.may_stop
        matcher.accept(token)
    assert matcher.finished and matcher.may_stop and matcher.failure is None


def test_stop_tokens_that_are_plain_text_end_nothing_halfway(tokenizer):
    letter = tokenizer.convert_tokens_to_ids("b")
    compiler = ConstraintCompiler(tokenizer, len(tokenizer), {tokenizer.eos_token_id, letter})
    matcher = compiler.compile(of("regex", "a[bc]")).start()
    matcher.accept(tokenizer.convert_tokens_to_ids("a"))
    assert not matcher.allowed()[letter] and matcher.allowed()[tokenizer.convert_tokens_to_ids("c")]


def test_a_dead_end_ends_the_row(tokenizer):
    """The only letter that could follow is cut from the vocabulary of the model's logits."""
    last = tokenizer.convert_tokens_to_ids("ð")
    compiler = ConstraintCompiler(tokenizer, last, {tokenizer.eos_token_id})
    matcher = compiler.compile(of("regex", "a🙂")).start()
    matcher.accept(tokenizer.convert_tokens_to_ids("a"))
    allowed = matcher.allowed()
    assert allowed.nonzero()[:, 0].tolist() == [tokenizer.eos_token_id]
    assert matcher.failure and matcher.finished and not matcher.may_stop
    with pytest.raises(ConstraintError, match="begin"):
        compiler.compile(of("regex", "🙂"))


def test_a_token_that_was_not_allowed_ends_the_row(compiler, tokenizer):
    matcher = compiler.compile(of("regex", "a+")).start()
    matcher.accept(tokenizer.convert_tokens_to_ids("b"))
    assert matcher.failure and matcher.finished and not matcher.may_stop
    assert matcher.allowed().nonzero()[:, 0].tolist() == [tokenizer.eos_token_id]


def test_an_expression_that_needs_too_many_states_ends_the_row_in_time(compiler, tokenizer):
    matcher = compiler.compile(of("regex", r"(.*a.{15}|.*b.{15}|.*c.{15}|.*d.{16})+")).start()
    letters, drawn = [tokenizer.convert_tokens_to_ids(letter) for letter in "abcd"], random.Random(0)
    for _ in range(3000):
        if matcher.finished:
            break
        matcher.allowed()
        matcher.accept(drawn.choice(letters))
    assert matcher.failure is not None
    assert matcher.allowed().any()


def test_rows_of_one_grammar_are_independent(compiler, tokenizer):
    grammar = compiler.compile(of("regex", "ab|ba"))
    first, second = grammar.start(), grammar.start()
    first.accept(tokenizer.convert_tokens_to_ids("a"))
    a, b = (tokenizer.convert_tokens_to_ids(letter) for letter in "ab")
    assert [bool(first.allowed()[token]) for token in (a, b)] == [False, True]
    assert [bool(second.allowed()[token]) for token in (a, b)] == [True, True]


@pytest.mark.parametrize("more", [-8, 0, 8, 13])
def test_logits_may_be_fewer_or_more_than_tokens(tokenizer, more):
    compiler = ConstraintCompiler(tokenizer, len(tokenizer) + more, {tokenizer.eos_token_id})
    allowed = compiler.compile(of("regex", ".*")).start().allowed()
    assert len(allowed) == len(tokenizer) + more
    assert not allowed[len(tokenizer) :].any()


def test_blanks_between_the_parts_of_json_run_out(compiler, tokenizer):
    matcher = compiler.compile(of("json-schema", PERSON)).start()
    matcher.accept(tokenizer.convert_tokens_to_ids("{"))
    blank = tokenizer.convert_tokens_to_ids("Ġ")
    count = 0
    while matcher.allowed()[blank]:
        matcher.accept(blank)
        count += 1
        assert count < 100
    assert count > 0 and matcher.failure is None


# --- refusals ---------------------------------------------------------------------------------------------------


def chain(length: int, depth: int = 0) -> str:
    """Definitions each of which refers to the next."""

    def wrapped(inner: Any) -> Any:
        for _ in range(depth):
            inner = {"items": inner}
        return inner

    definitions = {f"a{place}": wrapped({"$ref": f"#/$defs/a{place + 1}"}) for place in range(length)}
    return json.dumps({"$defs": {**definitions, f"a{length}": {"type": "integer"}}, "$ref": "#/$defs/a0"}, separators=(",", ":"))


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("json-schema", "{", "not JSON"),
        ("json-schema", "", "not JSON"),
        ("json-schema", "[" * 20_000, "not JSON"),
        ("json-schema", "[1]", "a schema is a JSON object"),
        ("json-schema", '{"type": "foo"}', "foo"),
        ("json-schema", '{"type": "string", "minLength": "three"}', "minLength|three|string"),
        ("json-schema", '{"not": {"type": "string"}}', "Unimplemented"),
        ("json-schema", '{"type": "integer", "not": {}, "x-guidance": {"lenient": true}}', "Unimplemented"),
        ("json-schema", '{"enum": ["\\ud800"]}', "."),
        ("json-schema", '{"$ref": "http://example.com/schema.json"}', "retriev"),
        ("json-schema", '{"$ref": "file:///etc/passwd"}', "retriev"),
        ("json-schema", '{"$ref": "#/$defs/none"}', "."),
        ("json-schema", "false", "nothing satisfies"),
        ("json-schema", '{"$ref": "#"}', "nothing satisfies"),
        ("json-schema", '{"type": "integer", "minimum": 3, "maximum": 2}', "(?i)unsatisfiable"),
        ("json-schema", '{"type": "integer", "multipleOf": 999983}', "multipleOf"),
        ("json-schema", '{"allOf": [{"multipleOf": 997}, {"multipleOf": 0.01}]}', "multipleOf"),
        ("json-schema", '{"type": "array", "items":' * 500 + "{}" + "}" * 500, "recursion|levels"),
        ("json-schema", chain(1200), "characters|levels"),
        ("json-schema", chain(100, 40), "levels|characters"),
        ("regex", "(a", "unclosed"),
        ("regex", r"(?=a)b", "look-around"),
        ("regex", r"(a)\1", "backreferences"),
        ("regex", "(" * 3000 + "a" + ")" * 3000, "invalid regex"),
        ("regex", r"[^\s\S]", "nothing satisfies"),
        ("regex", "\ud800", "surrogates"),
        ("regex", "a" * (LONGEST_VALUE + 1), "characters"),
        ("choice", "[]", "empty"),
        ("choice", '["a", 1]', "list of texts"),
        ("choice", '"a"', "list of texts"),
        ("choice", "a, b", "not JSON"),
        ("grammar", "start: A", "no such kind"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_used_is_refused_with_the_reason(compiler, kind, value, reason):
    with pytest.raises(ConstraintError, match=f"\\({kind}\\) cannot be used: ") as caught:
        compiler.compile(Constraint(kind=kind, value=value))
    assert re.search(reason, str(caught.value))
    assert len(str(caught.value)) < 800


def test_the_deepest_schemas_that_pass_the_bounds_compile():
    """In a process of its own: where the bounds let too much through, the stack overflows and takes the process along."""
    code = """
import tiny_models, test_constraint
from foreword.types import Constraint
compiler = test_constraint.compiler_of(tiny_models.build_tokenizer("llama"))
for length, depth in ((450, 3), (260, 9), (100, 28), (60, 40), (45, 60)):
    value = test_constraint.chain(length, depth)
    compiler.compile(Constraint(kind="json-schema", value=value))
"""
    paths = [str(Path(__file__).parent), str(Path(tiny_models.__file__).parent)]
    code = f"import sys; sys.path[:0] = {paths!r}\n{code}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr


def test_a_missing_package_is_named(tokenizer):
    """In a process of its own, where the package cannot be found."""
    code = """
import sys; sys.modules["llguidance"] = None
from foreword.engines._constraint import ConstraintCompiler
from foreword.errors import ServingError
from foreword.types import Constraint
try:
    ConstraintCompiler(None, 10, {1}).compile(Constraint(kind="json-object"))
except ServingError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "pip install 'foreword[serve]'" in ran.stdout


def test_a_tokenizer_that_cannot_be_constrained_is_no_fault_of_the_request():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2}, unk_token="a"))
    with pytest.raises(ServingError, match="tokenizer") as caught:
        compiler_of(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")).compile(of("regex", "a"))
    assert not isinstance(caught.value, ConstraintError)


# --- cache ------------------------------------------------------------------------------------------------------


def test_grammars_are_kept_and_the_oldest_let_go(tokenizer):
    compiler = compiler_of(tokenizer, cached=2)
    first = compiler.compile(of("regex", "a"))
    assert compiler.compile(of("regex", "a")) is first
    assert compiler.compile(of("choice", ["a"])) is not first
    compiler.compile(of("regex", "a"))
    compiler.compile(of("regex", "b"))
    assert compiler.compile(of("regex", "a")) is first, "used since, so not the oldest"
    compiler.compile(of("regex", "c"))
    compiler.compile(of("regex", "d"))
    assert compiler.compile(of("regex", "a")) is not first


def test_several_threads_compile_and_start(tokenizer):
    compiler, found = compiler_of(tokenizer), []

    def work(number: int) -> None:
        for _ in range(5):
            matcher = compiler.compile(of("regex", "a" * (1 + number % 3))).start()
            found.append(bool(matcher.allowed().any()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 30
