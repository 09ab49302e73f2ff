"""What training the prefixes of many users together saves beside training them one by one: same users, start, steps and settings.

python -m benchmarks.personalize            64 users, ten minutes on two cores; also with one target per user and step
python -m benchmarks.personalize --quick    16 users, a few steps

The users are made from banking77: each files the messages of five of its 77 intents into folders with names of the user's own, so that no
two users agree on the answers. All of them are trained together in one block, then a sample of them one by one, and the sample's time is
scaled to all by the number of users; everybody trains on equally many rows for equally many steps. Neither side's time includes loading the
model or making the start, which is one prefix for both. What is saved is the fixed cost of a step, so it depends on the tokens that a user
brings to one: short messages and few of them (--batch) save most on a CPU.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import command
from foreword.data.dataset import Dataset
from foreword.errors import DataError
from foreword.types import Example, Message

RESULT = Path(__file__).with_name("results") / "personalize.json"
BAR = 4.0
INTENTS, ROWS_PER_INTENT = 5, 8
FOLDERS = (
    *("amber", "birch", "cedar", "delta", "ember", "fern", "grove", "harbour", "iris", "jade", "kite", "lemon", "maple", "north"),
    *("olive", "pearl", "quartz", "river", "stone", "tulip", "umber", "velvet", "willow", "yarrow", "zephyr"),
)
INSTRUCTION = "File the customer's message into one of the user's folders. Answer with the name of the folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        sampled: users that are also trained alone.
        examples_seen: training targets of each user; None takes what `foreword personalize` takes.
    """

    users: int
    sampled: int
    examples_seen: int | None


FULL, QUICK = Size(users=64, sampled=4, examples_seen=48), Size(users=16, sampled=2, examples_seen=16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; returns the exit code."""
    parser = command.parser("personalize", __doc__, quick="fewer users and steps; keeps no result")
    parser.add_argument("--dtype", default="auto", help="number format of the weights (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="training targets of each user per step (default: that of `foreword personalize`)")
    options = parser.parse_args(arguments)

    def measured(data: Path, size: Size) -> Iterator[dict[str, Any]]:
        figures = measure(data, size, dtype=options.dtype, batch=options.batch)
        if not options.quick and options.batch is None:
            figures["one_target_a_step"] = measure(data, size, dtype=options.dtype, batch=1)
        yield figures

    return command.run(options, measured, full=FULL, quick=QUICK, result=RESULT)


def measure(data: Path, size: Size, *, dtype: str = "auto", batch: int | None = None) -> dict[str, Any]:
    """Time of all users together, of a sample one by one, and how far apart the two leave each user's dev loss."""
    from foreword import api
    from foreword.tuning.personal_settings import PersonalSettings

    users = pseudo_users(data, size.users, seed=0)
    engine: Any = api.load("smollm2", dtype=dtype).engine
    with tempfile.TemporaryDirectory() as folder:
        settings = PersonalSettings(
            start=f"prefix:{_common_start(engine, users, Path(folder))}",
            examples_seen=size.examples_seen,
            users_at_once=size.users,
            batch_targets=batch or PersonalSettings().batch_targets,
        )
        sample = [f"user-{place * size.users // size.sampled}" for place in range(size.sampled)]
        alone = users.with_examples(example for example in users if example.user in sample)
        # Both sides start warm.
        _train(engine, alone, settings.model_copy(update={"examples_seen": settings.batch_targets}))
        together = _train(engine, users, settings)
        one_by_one = _train(engine, alone, settings.model_copy(update={"users_at_once": 1}))
    scale = size.users / size.sampled
    gaps = [together.losses[user] - one_by_one.losses[user] for user in sample]
    return {
        "together_over_one_by_one": scale * one_by_one.wall / together.wall,
        "together_over_one_by_one_processor": scale * one_by_one.processor / together.processor,
        "bar": BAR,
        "loss_gap": fmean(gaps),
        "largest_loss_gap": max(gaps, key=abs),
        "loss_before": fmean(together.losses_before.values()),
        "loss_after": fmean(together.losses.values()),
        "users": size.users,
        "users_alone": size.sampled,
        "steps": together.steps,
        "targets_per_step_and_user": settings.batch_targets,
        "together_seconds": together.wall,
        "one_by_one_seconds_scaled": scale * one_by_one.wall,
        "dtype": str(engine.dtype),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One side: seconds of training, and each user's dev loss before and after."""

    wall: float
    processor: float
    steps: int
    losses: dict[str, float]
    losses_before: dict[str, float]


def _train(engine: Any, users: Dataset, settings: Any) -> Trained:
    from foreword.tuning.personal import personalize

    watcher = _Clock()
    results = personalize(engine, users, settings, observer=watcher)
    ended, ended_processor = time.perf_counter(), time.process_time()
    return Trained(
        wall=ended - watcher.began,
        processor=ended_processor - watcher.began_processor,
        steps=max(int(str(result.prefix.header.recipe["steps"])) for result in results if result.prefix is not None),
        losses={result.user: float(result.loss_after or 0.0) for result in results},
        losses_before={result.user: float(result.loss_before or 0.0) for result in results},
    )


class _Clock:
    """Watches a run; its clock starts when the start is made and training is planned."""

    began = began_processor = 0.0

    def planned(self, total_targets: int) -> None:
        if not self.began:
            self.began, self.began_processor = time.perf_counter(), time.process_time()

    def stage(self, text: str) -> None: ...

    def step(self, loss: float, targets_done: int, tokens_per_second: float) -> None: ...

    def evaluated(self, name: str, loss: float) -> None: ...

    def note(self, text: str) -> None: ...


def pseudo_users(data: Path, count: int, *, seed: int) -> Dataset:
    """`count` users with five intents and eight messages of each, filed under folder names of their own; no message has two users."""
    path = data / "banking77" / "train.jsonl.gz"
    if not path.is_file():
        raise DataError(f"{path} is not there. Name the folder of evaluation data with `--data`.")
    draw = random.Random(seed)
    texts: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            texts.setdefault(row["intent"], []).append(row["text"])
    for members in texts.values():
        draw.shuffle(members)
    examples = []
    for number in range(count):
        full = [intent for intent in sorted(texts) if len(texts[intent]) >= ROWS_PER_INTENT]
        folders = draw.sample(FOLDERS, INTENTS)
        filed = [
            (texts[intent].pop(), folder)
            for intent, folder in zip(draw.sample(full, INTENTS), folders, strict=True)
            for _ in range(ROWS_PER_INTENT)
        ]
        draw.shuffle(filed)
        examples += [
            Example(messages=(Message(role="user", content=text),), completions=(folder,), user=f"user-{number}") for text, folder in filed
        ]
    return Dataset.of(examples, path="banking77 by user")


def _common_start(engine: Any, users: Dataset, folder: Path) -> Path:
    """The start of `foreword personalize` as a file, so that it does not depend on who is trained."""
    from foreword.prefix.artifact import Prefix
    from foreword.tuning import initialisation
    from foreword.tuning.initialisation import StartContext
    from foreword.tuning.personal_settings import PersonalSettings

    usual = PersonalSettings()
    key, _, argument = usual.start.partition(":")
    context = StartContext(
        engine=engine,
        train=users,
        instruction=INSTRUCTION,
        positions=usual.positions,
        argument=argument,
        seed=usual.seed,
        room=engine.window // 2,
    )
    start = initialisation.get(key).start(context)
    prefix = Prefix.make(
        name="start",
        kind="text",
        key_LHND=start.key_LHND,
        value_LHND=start.value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format=start.prompt_format,
    )
    path = folder / "start.safetensors"
    prefix.save(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
