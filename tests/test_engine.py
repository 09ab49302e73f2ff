"""What an engine can do is told by the protocols that it meets."""

from __future__ import annotations

import subprocess
import sys

from foreword.engine import Differentiable, Engine, Generates, Row, TakesPrefix, Traceable


class Named:
    name = "named"
    window = 8


class Answers(Named):
    def generate(self, conversations, *, prefix=None, sampling=None, progress=None):
        return []

    def stream(self, conversation, *, prefix=None, sampling=None):
        yield ""


class Reads(Answers):
    fingerprint = geometry = None

    def check(self, prefix): ...

    def encode(self, text): ...

    def render(self, conversation, *, prompt_format="full"): ...

    def read(self, token_ids, *, behind=None): ...


class Trains(Reads):
    module = tokenizer = None

    def render_context(self, messages): ...

    def answer_ids(self, text): ...

    def batches(self, rows, *, most_tokens): ...

    def prefix_attention(self, rows, key_LHND, value_LHND): ...

    def target_log_probs(self, rows, key_LHND=None, value_LHND=None): ...

    def likeliest(self, rows, key_LHND=None, value_LHND=None, *, count): ...

    def log_probs_of(self, rows, token_ids_TC, key_LHND=None, value_LHND=None): ...


class Shows(Trains):
    reach = ()

    def asked(self, token_ids, key_LHND, value_LHND, *, kept): ...


PROTOCOLS = (Engine, Generates, TakesPrefix, Differentiable, Traceable)


def met(engine: object) -> list[type]:
    return [protocol for protocol in PROTOCOLS if isinstance(engine, protocol)]


def test_each_protocol_asks_for_more():
    assert met(object()) == []
    assert met(Named()) == [Engine]
    assert met(Answers()) == [Engine, Generates]
    assert met(Reads()) == [Engine, Generates, TakesPrefix]
    assert met(Trains()) == [Engine, Generates, TakesPrefix, Differentiable]
    assert met(Shows()) == list(PROTOCOLS)


def test_a_row_is_a_value():
    row = Row(prompt=(1, 2), targets=((3,), ()))
    assert row == Row(prompt=(1, 2), targets=((3,), ())) and hash(row) == hash(Row(prompt=(1, 2), targets=((3,), ())))


def test_the_contract_loads_no_tensor_library():
    code = "import sys, foreword.engine; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
