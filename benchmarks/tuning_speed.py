"""Speed and memory of prefix training against PEFT's prefix tuning: same model, data, steps, dtype, prefix length.

Each side lives in a process of its own, so that its peak memory is its own; the parent lets them take turns, a few
steps each, so that a slow minute of the machine hits both.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import shared_tasks
from foreword.engine import Row
from foreword.evaluate.task import Task

POSITIONS = 32
BATCH = 16
OUR_RATES = {"e2e": 0.05, "hate": 0.02}
"""What `foreword tune` takes first for text and for labels."""
PEFT_RATES = {"peft": 3e-2, "peft-from-text, rate 0.01": 1e-2, "peft-from-text, rate 0.03": 3e-2}
"""PEFT as it starts by itself, and from the same keys and values as ours at two rates; the lowest loss of all is the peer's."""
SIDES = ("foreword", *PEFT_RATES)


def measure(
    data: Path, *, task: str, dtype: str, turns: int, steps_per_turn: int, sides: Sequence[str] = SIDES, dev_rows: int = 64
) -> dict[str, Any]:
    """Examples per second, peak memory and dev loss of every side, and the ratios to `peft`."""
    command = [sys.executable, "-m", "benchmarks.tuning_speed", str(data), task, dtype, str(1 + turns * steps_per_turn), str(dev_rows)]
    running = {side: _Side([*command, side]) for side in sides}
    for side in running.values():
        side.ask("warm")
    for _ in range(turns):
        for side in running.values():
            side.ask(f"steps {steps_per_turn}")
    found = {name: side.ask("finish") for name, side in running.items()}
    for side in running.values():
        side.end()
    ours, peer = found["foreword"], found["peft"]
    best_peer_loss = min(side["dev_loss"] for name, side in found.items() if name in PEFT_RATES)
    # Prompts have few or many targets, so a turn of few steps says little alone; the ratio is of all turns together.
    turn_ratios = [_rate([mine]) / _rate([theirs]) for mine, theirs in zip(ours["turns"], peer["turns"], strict=True)]
    return {
        "task": task,
        "dtype": dtype,
        "steps": turns * steps_per_turn,
        "sides": found,
        "speed_ratio": _rate(ours["turns"]) / _rate(peer["turns"]),
        "speed_ratio_range": [min(turn_ratios), max(turn_ratios)],
        "memory_ratio": ours["peak_memory"] / peer["peak_memory"],
        "loss_difference": ours["dev_loss"] - best_peer_loss,
    }


def _rate(turns: Sequence[tuple[int, float]]) -> float:
    """Examples per second."""
    return sum(trained for trained, _ in turns) / sum(seconds for _, seconds in turns)


class _Side:
    """A child process that trains when told to."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"A side of the speed benchmark ended with code {self._process.wait()}.")
        return json.loads(answer)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# --- the child -----------------------------------------------------------------------------------------------


class Ours:
    """Training as `foreword tune` does it, without its probes."""

    def __init__(self, engine: Any, rows: Sequence[Any], start: tuple[Any, Any], steps: int, *, rate: float) -> None:
        from foreword.tuning import objective
        from foreword.tuning.parameters import ScaledOffsets
        from foreword.tuning.run import CPU_MICRO_TOKENS
        from foreword.tuning.trainer import BatchOrder, Schedule, Trainer

        self.engine = engine
        schedule = Schedule(peak=rate, warmup=3, hold=3, total=steps)
        order = BatchOrder(rows, batch_targets=BATCH, seed=0)
        self._trainer = Trainer(engine, objective.get("lm"), ScaledOffsets(*start), order, schedule, micro_tokens=CPU_MICRO_TOKENS)

    def step(self) -> int:
        """Takes a step; the targets that it trained on."""
        records: list[Any] = []
        self._trainer.run(self._trainer.step + 1, after_step=lambda record: not records.append(record))
        self.last = records[0]
        return self.last.targets

    def keys_values(self) -> tuple[Any, Any]:
        return tuple(tensor.detach().to(self.engine.dtype) for tensor in self._trainer.parameters.keys_values())  # type: ignore[return-value]


class _Peft:
    """PEFT's prefix tuning as its documentation has it: shuffled pairs, labels -100 on the prompt, the loss of the wrapped model."""

    def __init__(self, engine: Any, rows: Sequence[Any], start: tuple[Any, Any] | None, steps: int, *, rate: float) -> None:
        import torch
        from peft import PrefixTuningConfig, get_peft_model

        from foreword.tuning.trainer import Schedule

        self.engine = engine
        engine.module.set_attn_implementation("sdpa")
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=POSITIONS)
        torch.manual_seed(0)
        self._model: Any = get_peft_model(engine.module, config)
        self._weight = next(parameter for parameter in self._model.parameters() if parameter.requires_grad)
        if start is not None:
            with torch.no_grad():
                self._weight.copy_(torch.stack(start, dim=1).permute(3, 0, 1, 2, 4).reshape(POSITIONS, -1))
        self._schedule = Schedule(peak=rate, warmup=3, hold=3, total=steps)
        self._optimiser = torch.optim.AdamW([self._weight], lr=rate, weight_decay=0.0)
        self._pairs = [(row.prompt, target) for row in rows for target in row.targets]
        random.Random(0).shuffle(self._pairs)
        self._step = 0

    def step(self) -> int:
        import torch

        pairs = [self._pairs[place % len(self._pairs)] for place in range(BATCH * self._step, BATCH * (self._step + 1))]
        longest = max(len(prompt) + len(target) for prompt, target in pairs)
        ids = torch.zeros(len(pairs), longest, dtype=torch.long)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for place, (prompt, target) in enumerate(pairs):
            end = len(prompt) + len(target)
            ids[place, :end] = torch.tensor([*prompt, *target])
            labels[place, len(prompt) : end] = torch.tensor(target)
            mask[place, :end] = 1
        self._optimiser.param_groups[0]["lr"] = self._schedule.at(self._step)
        self._optimiser.zero_grad()
        self._model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_([self._weight], 1.0)
        self._optimiser.step()
        self._step += 1
        return len(pairs)

    def keys_values(self) -> tuple[Any, Any]:
        geometry = self.engine.geometry
        shape = (POSITIONS, geometry.layers, 2, geometry.kv_heads, geometry.head_dim)
        both = self._weight.detach().view(shape).permute(1, 2, 3, 0, 4).to(self.engine.dtype)
        return both[:, 0].contiguous(), both[:, 1].contiguous()


def set_up(task: Task, dtype: str) -> tuple[Any, Sequence[Row], tuple[Any, Any]]:
    """The engine, the task's training rows, and the keys and values that training starts from."""
    from foreword import api
    from foreword.tuning.initialisation import StartContext
    from foreword.tuning.initialisations import few_shot
    from foreword.tuning.rows import encode_examples

    engine = api.load("smollm2", dtype=dtype).engine
    context = StartContext(
        engine=engine, train=task.train, instruction=task.instruction, positions=POSITIONS, argument="8", seed=0, room=engine.window // 2
    )
    start = few_shot.start(context)
    rows = encode_examples(engine, task.train.examples, prompt_format="continuation", room=engine.window - POSITIONS).rows
    return engine, rows, (start.key_LHND, start.value_LHND)


def _child(data: Path, task_name: str, dtype: str, steps: int, dev_rows: int, side: str) -> None:
    from foreword.evaluate.measuring import peak_memory
    from foreword.tuning.dev_loss import DevLoss

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = shared_tasks.e2e(data, pairs=None, seed=0) if task_name == "e2e" else shared_tasks.hate_speech(data, rows=1500, seed=0)
    engine, rows, tensors = set_up(task, dtype)
    if side == "foreword":
        trainer: Ours | _Peft = Ours(engine, rows, tensors, steps, rate=OUR_RATES[task_name])
    else:
        trainer = _Peft(engine, rows, tensors if "text" in side else None, steps, rate=PEFT_RATES[side])
    turns: list[tuple[int, float]] = []
    for line in sys.stdin:
        command, _, count = line.strip().partition(" ")
        if command == "warm":
            trainer.step()
            answers.write("{}\n")
        elif command == "steps":
            began = time.perf_counter()
            trained = sum(trainer.step() for _ in range(int(count)))
            turns.append((trained, time.perf_counter() - began))
            answers.write("{}\n")
        else:
            memory = peak_memory()
            if side != "foreword":
                engine.module.set_attn_implementation("foreword_grouped")
            loss = DevLoss(engine, task.dev, prompt_format="continuation", room=8000, limit=dev_rows, seed=0)
            answers.write(json.dumps({"turns": turns, "peak_memory": memory, "dev_loss": loss(*trainer.keys_values())}) + "\n")


if __name__ == "__main__":
    _child(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
