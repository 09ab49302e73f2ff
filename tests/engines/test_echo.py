"""The engine without weights: it says the words again, and in everything else behaves as engines do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword import registry
from foreword.engine import Generates, Request, Serves
from foreword.engines.echo import EchoServing, load
from foreword.errors import ConfigError, ConstraintError, Overloaded, PrefixFileError, ServingError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Fingerprint, Geometry
from foreword.types import Constraint, Delta, Message, Sampling

PATIENCE = 30.0
FINGERPRINT = Fingerprint(architecture="X", config="0" * 64, weights="1" * 64, tokenizer="2" * 64, chat_template="3" * 64)
GEOMETRY = Geometry(layers=1, kv_heads=1, head_dim=4, rotary=())


def make(name: str, positions: int = 3) -> Prefix:
    key_LHND = torch.zeros(1, 1, positions, 4)
    return Prefix.make(
        **{"name": name, "kind": "learned", "key_LHND": key_LHND, "value_LHND": key_LHND},
        **{"fingerprint": FINGERPRINT, "geometry": GEOMETRY, "prompt_format": "full"},
    )  # fmt: skip


def asked(words: str, prefix: tuple[Path, ...] = (), **sampling: Any) -> Request:
    return Request(conversation=(Message(role="user", content=words),), prefix=prefix, sampling=Sampling(**sampling))


class Answer:
    """Collects the pieces of one answer."""

    def __init__(self) -> None:
        self.pieces: list[Delta] = []
        self._ended = threading.Event()

    def __call__(self, delta: Delta) -> None:
        self.pieces.append(delta)
        if delta.finish_reason is not None:
            self._ended.set()

    def wait(self) -> tuple[str, str | None]:
        assert self._ended.wait(PATIENCE)
        return "".join(piece.text for piece in self.pieces), self.pieces[-1].finish_reason


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def serving() -> Iterator[EchoServing]:
    serving = load().serve(max_rows=2, queue=2)
    yield serving
    serving.close()


@pytest.fixture
def slow() -> Iterator[EchoServing]:
    serving = load("echo-5ms").serve(max_rows=2, queue=1)
    yield serving
    serving.close()


def say(serving: EchoServing, request: Request) -> tuple[str, str | None]:
    answer = Answer()
    serving.submit(request, answer)
    return answer.wait()


def test_the_registry_finds_it():
    engine = registry.find("foreword.engines", "echo").load("any-name", dtype="float32", device="cpu")
    serving = engine.serve(max_rows=1, queue=0, resident_bytes=0)
    assert isinstance(engine, Generates) and isinstance(serving, Serves)
    assert (serving.name, serving.window) == (engine.name, engine.window) == ("any-name", 4096)
    serving.close()


def test_it_loads_no_tensor_library():
    probe = "import sys, foreword.engines.echo; print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_one_word_per_token(serving: EchoServing):
    answer = Answer()
    ticket = serving.submit(asked("one  two\nthree"), answer)
    assert answer.wait() == ("one  two\nthree", "stop")
    assert [piece.text for piece in answer.pieces] == ["one", "  two", "\nthree"]
    assert all(len(piece.token_ids) == 1 for piece in answer.pieces) and ticket.prompt_tokens == 3
    usage = answer.pieces[-1].usage
    assert usage is not None and (usage.prompt_tokens, usage.completion_tokens, usage.prefix_positions) == (3, 3, 0)


@pytest.mark.parametrize(
    ("words", "sampling", "said"),
    [
        ("", {}, ("", "stop")),
        ("a b c", {"max_new_tokens": 2}, ("a b", "length")),
        ("a b c", {"max_new_tokens": 3}, ("a b c", "stop")),
        ("a b", {"max_new_tokens": 5, "ignore_end": True}, ("a b a b a", "length")),
        ("a bcd e", {"stop": ("cd",)}, ("a b", "stop")),
        ("a bcd e", {"stop": ("e", "c")}, ("a b", "stop")),
        ("a bcd e", {"stop": ("d e",)}, ("a bc", "stop")),
        ("a b c", {"stop": ("c",), "max_new_tokens": 2}, ("a b", "length")),
    ],
)
def test_where_it_ends(serving: EchoServing, words: str, sampling: dict[str, Any], said: tuple[str, str]):
    assert say(serving, asked(words, **sampling)) == said
    completion = load().generate([asked(words).conversation], sampling=Sampling(**sampling))[0]
    assert (completion.text, completion.finish_reason) == said
    assert "".join(load().stream(asked(words).conversation, sampling=Sampling(**sampling))) == said[0]


def test_a_plain_text(serving: EchoServing):
    assert say(serving, Request(text="go on from here")) == ("go on from here", "stop")


def test_a_prefix_begins_the_answer(serving: EchoServing, tmp_path: Path):
    files = tuple(tmp_path / f"{name}.safetensors" for name in ("task", "user"))
    for file, positions in zip(files, (3, 4), strict=True):
        make(file.stem, positions).save(file)
    assert say(serving, asked("hi", files[:1])) == ("[task] hi", "stop")
    answer = Answer()
    serving.submit(asked("hi", files), answer)
    assert answer.wait() == ("[task+user] hi", "stop")
    assert answer.pieces[-1].usage is not None and answer.pieces[-1].usage.prefix_positions == 7
    assert load().generate([asked("hi").conversation], prefix=make("task"))[0].text == "[task] hi"


def test_resident_prefixes(tmp_path: Path):
    files = []
    for name in ("a", "b", "c"):
        make(name).save(tmp_path / name)
        files.append((tmp_path / name,))
    size = make("a").nbytes
    serving = load().serve(resident_bytes=2 * size)
    serving.keep(files[0], pinned=True)
    for file in (files[1], files[1], files[2]):
        say(serving, asked("hi", file))
    assert serving.resident() == (files[2], files[0]), "the pinned one stays, the one used longest ago goes"
    load_now = serving.load()
    assert (load_now.prefix_hits, load_now.prefix_misses) == (1, 2)
    assert (load_now.resident_prefixes, load_now.resident_bytes) == (2, 2 * size)
    serving.let_go(files[0])
    assert serving.resident() == (files[2],)
    serving.close()


def test_a_replaced_file_is_read_again(serving: EchoServing, tmp_path: Path):
    file = tmp_path / "x"
    make("before").save(file)
    assert say(serving, asked("hi", (file,)))[0] == "[before] hi"
    make("after").save(file)
    assert say(serving, asked("hi", (file,)))[0] == "[after] hi"
    file.write_bytes(b"half")
    with pytest.raises(PrefixFileError):
        serving.submit(asked("hi", (file,)), Answer())
    file.unlink()
    with pytest.raises(PrefixFileError):
        serving.keep((file,))


def test_logprobs(serving: EchoServing):
    answer = Answer()
    serving.submit(asked("one two", logprobs=2), answer)
    answer.wait()
    tokens = [token for piece in answer.pieces for token in piece.logprobs]
    assert [(token.text, token.logprob, [other.text for other in token.top]) for token in tokens] == [
        ("one", 0.0, ["one", "one."]),
        (" two", 0.0, [" two", " two."]),
    ]
    assert [token.token_id for token in tokens] == [id for piece in answer.pieces for id in piece.token_ids]


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (Constraint(kind="json-object"), '{"echo": "say 7"}'),
        (Constraint(kind="choice", value='["6", "7"]'), "7"),
        (Constraint(kind="choice", value='["8", "9"]'), "8"),
        (Constraint(kind="regex", value="say 7"), "say 7"),
        (Constraint(kind="regex", value="[0-9]"), None),
        (Constraint(kind="regex", value="(say"), None),
        (Constraint(kind="json-schema", value="{"), None),
        (Constraint(kind="json-schema", value="{}"), None),
        (Constraint(kind="choice", value="[]"), None),
        (Constraint(kind="choice", value="7"), None),
    ],
)
def test_constraints(serving: EchoServing, constraint: Constraint, said: str | None):
    if said is None:
        with pytest.raises(ConstraintError):
            serving.submit(asked("say 7", constraint=constraint), Answer())
    else:
        assert say(serving, asked("say 7", constraint=constraint))[0] == said


def test_a_schema_is_met_by_json(serving: EchoServing):
    assert say(serving, asked('{"a": 1}', constraint=Constraint(kind="json-schema", value="{}")))[0] == '{"a": 1}'


@pytest.mark.parametrize(
    ("sampling", "error"),
    [
        ({"temperature": -1}, ConfigError),
        ({"top_p": 0}, ConfigError),
        ({"max_new_tokens": 0}, ConfigError),
        ({"max_new_tokens": 4096}, WindowError),
    ],
)
def test_what_is_refused(serving: EchoServing, sampling: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        serving.submit(asked("hi", **sampling), Answer())
    with pytest.raises(error):
        load().generate([asked("hi").conversation], sampling=Sampling(**sampling))


@pytest.mark.parametrize(("words", "room"), [(1, 99), (99, 1), (100, 0), (200, 0)])
def test_a_refusal_tells_the_room(words: int, room: int):
    with pytest.raises(WindowError) as refused:
        load(window=100).generate([asked("w " * words).conversation], sampling=Sampling(max_new_tokens=101))
    assert refused.value.room == room


def test_a_step_that_fails_ends_its_request_only():
    serving = load(fails_at="break").serve(max_rows=2)
    answers = [Answer(), Answer()]
    for answer, words in zip(answers, ("one break two", "one two three"), strict=True):
        serving.submit(asked(words), answer)
    assert [answer.wait() for answer in answers] == [("one", "error"), ("one two three", "stop")]
    assert [piece.finish_reason for piece in answers[0].pieces] == [None, "error"] and answers[0].pieces[-1].usage is not None
    assert say(serving, asked("unbreakable")) == ("unbreakable", "stop")
    serving.close()


@pytest.mark.parametrize("options", [{"max_rows": 0}, {"queue": -1}, {"resident_bytes": -1}])
def test_serving_that_cannot_be(options: dict[str, int]):
    with pytest.raises(ConfigError):
        load().serve(**options)


def test_rows_share_steps_and_the_queue_is_bounded(slow: EchoServing):
    answers = [Answer() for _ in range(3)]
    for answer in answers:
        slow.submit(asked("w " * 20), answer)
    with pytest.raises(Overloaded) as full:
        slow.submit(asked("w"), Answer())
    assert full.value.retry_after > 0
    eventually(lambda: slow.load().running == 2 and slow.load().waiting == 1)
    assert [answer.wait()[1] for answer in answers] == ["stop"] * 3
    eventually(lambda: slow.load().running == 0)
    assert slow.load().steps < 60 and slow.load().completion_tokens == 60 and slow.load().prompt_tokens == 60


def test_cancelled_it_ends_once_and_frees_its_row(slow: EchoServing):
    running, waiting = Answer(), Answer()
    tickets = [slow.submit(asked("w " * 500, max_new_tokens=500), answer) for answer in (running, running, waiting)]
    for ticket in tickets:
        ticket.cancel()
        ticket.cancel()
    assert running.wait()[1] == "cancelled" and waiting.wait()[1] == "cancelled"
    eventually(lambda: slow.load().running + slow.load().waiting == 0)
    assert [piece.finish_reason for piece in waiting.pieces] == ["cancelled"]
    assert waiting.pieces[-1].usage is not None and slow.load().completion_tokens < 100
    tickets[0].cancel()


def test_closing_lets_answers_end(slow: EchoServing):
    answer = Answer()
    slow.submit(asked("w " * 10), answer)
    slow.close(drain_seconds=PATIENCE)
    assert answer.pieces[-1].finish_reason == "stop"
    with pytest.raises(ServingError, match="about to stop"):
        slow.submit(asked("w"), Answer())
    slow.close()


def test_closing_at_once_cancels(slow: EchoServing):
    answers = [Answer() for _ in range(3)]
    for answer in answers:
        slow.submit(asked("w " * 500, max_new_tokens=500), answer)
    slow.close()
    assert [answer.pieces[-1].finish_reason for answer in answers] == ["cancelled"] * 3


def test_progress_is_told():
    counted: list[int] = []
    load().generate([asked("a").conversation, asked("b").conversation], progress=counted.append)
    assert counted == [1, 1]
