"""A tiny frozen model, two small tasks, a watcher that remembers, and plug-in objectives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.data.dataset import Dataset
from foreword.tuning.initialisation import StartContext
from foreword.tuning.settings import TuneSettings
from foreword.types import Example, Message

EngineOf = Callable[..., Any]
LABELS = ("bad", "good", "mixed")
NAMES = ("Aromi", "Eagle", "Vaults", "Cotto", "Zizzi", "Bibimbap", "Clowns", "Wrestlers")
FOODS = ("Chinese", "French", "Indian")


def example(prompt: str, *completions: str, line: int = 0) -> Example:
    return Example(messages=(Message(role="user", content=prompt),), completions=completions, line=line)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is written to the home of whoever runs the tests."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FOREWORD_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def engine_of(tiny_model_folder: Any) -> EngineOf:
    """`engine_of("llama", dtype="float32", **fields of the config)`, loaded once each."""
    loaded: dict[str, Any] = {}

    def engine(family: str = "llama", *, dtype: str = "float32", **config: Any) -> Any:
        key = repr((family, dtype, sorted(config.items())))
        if key not in loaded:
            loaded[key] = load(str(tiny_model_folder(family, **config)), dtype=dtype, device="cpu").engine
        return loaded[key]

    return engine


@pytest.fixture(scope="session")
def engine(engine_of: EngineOf) -> Any:
    return engine_of("llama")


@pytest.fixture(scope="session")
def texts() -> Dataset:
    """24 prompts with one answer each."""
    pairs = [(name, food) for name in NAMES for food in FOODS]
    return Dataset.of(
        [example(f"{name}, {food}", f"{name} has {food} food.", line=line) for line, (name, food) in enumerate(pairs, start=1)],
        path="texts.jsonl",
    )


@pytest.fixture(scope="session")
def held_out() -> Dataset:
    return Dataset.of([example(f"Punter, {food}", f"Punter has {food} food.", line=line) for line, food in enumerate(FOODS, 1)])


@pytest.fixture(scope="session")
def labelled() -> Dataset:
    """24 texts in three classes, eight each."""
    rows = [example(f"{name} was {'so ' * place}{label}", label) for label in LABELS for place, name in enumerate(NAMES)]
    return Dataset.of(rows, labels=LABELS, path="labelled.jsonl")


@pytest.fixture(scope="session")
def short() -> TuneSettings:
    """Nine steps of eight targets from one start, evaluated three times."""
    return TuneSettings(
        positions=8,
        initialisation="text:Answer in one sentence.",
        learning_rate=0.3,
        examples_seen=72,
        batch_targets=8,
        evaluations=3,
        instruction="Say it.",
    )


@pytest.fixture(scope="session")
def contested() -> TuneSettings:
    """Ten steps for the winner of several candidates: a batch takes all the data, and more targets are asked for than a search needs."""
    return TuneSettings(positions=6, examples_seen=100_000, batch_targets=10_000, evaluations=4, instruction="Judge it.")


@pytest.fixture
def context_for(engine: Any, texts: Dataset) -> Callable[..., StartContext]:
    """`context_for(argument="2", positions=8)`: what an initialisation draws on."""

    def make(**fields: Any) -> StartContext:
        usual = {"engine": engine, "train": texts, "instruction": "Say it.", "positions": None, "argument": None, "seed": 0, "room": 256}
        return StartContext(**{**usual, **fields})

    return make


class Watcher:
    """Remembers what it was told; calls `at_step` with the number of steps seen."""

    def __init__(self, at_step: Callable[[int], None] | None = None) -> None:
        self.stages: list[str] = []
        self.plans: list[int] = []
        self.losses: list[float] = []
        self.done: list[int] = []
        self.dev: list[tuple[str, float]] = []
        self.notes: list[str] = []
        self._at_step = at_step

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def planned(self, total_targets: int) -> None:
        self.plans.append(total_targets)

    def step(self, loss: float, targets_done: int, tokens_per_second: float) -> None:
        self.losses.append(loss)
        self.done.append(targets_done)
        if self._at_step is not None:
            self._at_step(len(self.losses))

    def evaluated(self, name: str, loss: float) -> None:
        self.dev.append((name, loss))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="session")
def watcher_class() -> type[Watcher]:
    return Watcher


# A step may compute its loss in several groups of rows, but all with the same keys.
OBJECTIVE = """
from foreword.tuning.objectives import lm

STEP, KEYS = 0, None


def loss(engine, rows, key_LHND, value_LHND):
    global STEP, KEYS
    if key_LHND is not KEYS:
        STEP, KEYS = STEP + 1, key_LHND
    {body}
"""


@pytest.fixture
def objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """`objective("return ...")`: installs an objective with this body and gives its name; `STEP` counts the steps taken, from 1."""
    module = "objective_of_a_test"

    def install(body: str) -> str:
        (tmp_path / f"{module}.py").write_text(OBJECTIVE.format(body=body))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[foreword.objectives]\nspecial = {module}\n")
        monkeypatch.syspath_prepend(tmp_path)
        return "special"

    yield install
    sys.modules.pop(module, None)


def same_tensors(left: Any, right: Any) -> bool:
    """Whether two prefixes hold the same numbers, bit for bit."""
    return torch.equal(left.key_LHND, right.key_LHND) and torch.equal(left.value_LHND, right.value_LHND)


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    return same_tensors
