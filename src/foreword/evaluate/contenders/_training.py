"""The training loop of the rivals: plain torch over a Hugging Face module, as strong as a short budget allows.

Axes: B pair of the batch, T token, V vocabulary.

What every rival gets alike: 16 (prompt, answer) pairs a step, an order drawn from the seed with pairs of like length
together, loss on the answer's tokens only, AdamW with gradient clipping at 1, a short warm-up, cosine decay over the
time that is left, a tenth of the budget for a probe of each learning rate, evaluation at intervals on held-out
training rows, and the best state kept. States lie on disk, so that keeping one costs no memory.
"""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

from foreword.errors import EvaluationError, NonFiniteLoss
from foreword.evaluate.contender import Context, Conversations, split_for_selection
from foreword.types import Example

log = logging.getLogger(__name__)

PAIRS_PER_STEP = 16
TOKENS_PER_FORWARD = 8192
SELECTION_PAIRS = 48
LEAST_SELECTION_PAIRS = 8
PROBE_SHARE = 0.1
LEAST_PROBE_STEPS = 3
STEP_PER_FORWARD = 3
"""A training step takes about three forward passes: the backward pass counts for two."""
WARMUP_STEPS = 10
CLIP_NORM = 1.0
EVALUATION_SHARE = 0.1
"""An evaluation comes after a tenth of the budget at the earliest and may take half of that."""
FINAL_RATE_SHARE = 0.1
IGNORED = -100
STOCK_ATTENTION = ("sdpa", "eager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One prompt and one answer to it, as token ids; the answer ends with the end of the turn."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.target)


Loss = Callable[[Sequence[Pair]], tuple[Tensor, int]]
"""Sum of the answers' negative log-probabilities, and over how many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a rival learns from and is chosen by."""

    fit: list[Pair]
    selection: list[Pair]
    skipped: int

    def notes(self) -> tuple[str, ...]:
        return (f"{self.skipped} training pairs longer than the window were left out",) if self.skipped else ()


@dataclass(slots=True, kw_only=True)
class Trained:
    """How a training run went. `history` holds (seconds, steps, selection loss per token)."""

    rate: float
    probed: bool = False
    steps: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    history: list[tuple[float, int, float]] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        how = "chosen by probes" if self.probed else "the default"
        return (f"learning rate {self.rate:g} ({how}), {self.steps} steps, selection loss {self.best_loss:.3f}",)


def lesson(context: Context, conversations: Conversations, *, room: int) -> Lesson:
    """Tokenises the training data and holds out the rows to choose by.

    Args:
        room: positions a pair may take: the window less what stands before the prompt.

    Raises:
        EvaluationError: no pair fits.
    """
    fit_rows, selection_rows = split_for_selection(context.task.train, context.seed)
    fit, skipped = _pairs(context.engine, conversations, fit_rows, room)
    held_out, _ = _pairs(context.engine, conversations, selection_rows, room)
    if not fit or not held_out:
        raise EvaluationError(f"No training pair fits the {room} positions there are. Shorten the examples or use a longer window.")
    chosen = random.Random(context.seed).sample(held_out, min(SELECTION_PAIRS, len(held_out)))
    return Lesson(fit=fit, selection=chosen, skipped=skipped)


def _pairs(engine: Any, conversations: Conversations, rows: Sequence[Example], room: int) -> tuple[list[Pair], int]:
    fitting: list[Pair] = []
    skipped = 0
    for example in rows:
        prompt = tuple(engine.render(conversations(example)))
        for completion in example.completions:
            pair = Pair(prompt=prompt, target=tuple(engine.answer_ids(completion)))
            if pair.length <= room:
                fitting.append(pair)
            else:
                skipped += 1
    return fitting, skipped


@dataclass(slots=True, kw_only=True)
class Trainee:
    """A module with some parameters set free.

    Attributes:
        module: switched between training and evaluation mode.
        parameters: those that learn, by name.
        loss: differentiable in them.
        folder: where states are kept.
    """

    module: Any
    parameters: Mapping[str, Parameter]
    loss: Loss
    folder: Path

    def state_file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def save(self, name: str) -> None:
        save_file({key: value.detach().contiguous() for key, value in self.parameters.items()}, self.state_file(name))

    def load(self, name: str) -> None:
        stored = load_file(self.state_file(name))
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.copy_(stored[key])

    @torch.no_grad()
    def selection_loss(self, pairs: Sequence[Pair]) -> float:
        """Mean over the answers' tokens; not finite when the state is broken."""
        self.module.eval()
        total, tokens = 0.0, 0
        ordered = sorted(pairs, key=lambda pair: pair.length)
        for start in range(0, len(ordered), PAIRS_PER_STEP):
            for part in _parts(ordered[start : start + PAIRS_PER_STEP]):
                loss, count = self.loss(part)
                total, tokens = total + float(loss), tokens + count
        return total / tokens


def train(
    trainee: Trainee, lesson: Lesson, *, rates: Sequence[float], context: Context, start: float, weight_decay: float = 0.0
) -> Trained:
    """Trains inside the context's budget, counted from `start`, and leaves the best state in the module.

    Each rate is probed for a tenth of the budget from the same state; the winner goes on from where its probe ended. Where a
    probe would hold too few steps to tell anything, the last rate is the default.

    Raises:
        NonFiniteLoss: no rate gave a finite loss.
    """
    run = _Run(trainee=trainee, selection=lesson.selection, fit=lesson.fit, context=context, weight_decay=weight_decay, start=start)
    probed = run.fit_to_budget() and len(rates) > 1
    rate = run.probe(rates) if probed else rates[-1]
    context.report(f"training at rate {rate:g}")
    run.phase(rate, seconds=context.budget_seconds - run.elapsed, decay=True)
    if not math.isfinite(run.best_loss):
        tried = ", ".join(f"{each:g}" for each in (rates if probed else (rate,)))
        raise NonFiniteLoss(f"The loss was never finite; the rates tried were {tried}. Use float32, or look for broken rows in the data.")
    trainee.load("best")
    trainee.module.eval()
    return Trained(rate=rate, probed=probed, steps=run.steps, seconds=run.elapsed, best_loss=run.best_loss, history=run.history)


@dataclass(slots=True, kw_only=True)
class _Run:
    """The state of one training run over its phases."""

    trainee: Trainee
    fit: list[Pair]
    selection: list[Pair]
    context: Context
    weight_decay: float
    start: float
    steps: int = 0
    best_loss: float = math.inf
    history: list[tuple[float, int, float]] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        return self.context.now() - self.start

    def fit_to_budget(self) -> bool:
        """Keeps as many selection pairs as can be afforded; whether the budget also affords probes of the rates."""
        few = self.selection[:LEAST_SELECTION_PAIRS]
        before = self.elapsed
        self.trainee.selection_loss(few)
        per_pair = (self.elapsed - before) / len(few)
        share = EVALUATION_SHARE / 2 * self.context.budget_seconds
        affordable = SELECTION_PAIRS if per_pair * SELECTION_PAIRS <= share else int(share / per_pair)
        self.selection = self.selection[: max(LEAST_SELECTION_PAIRS, affordable)]
        step_seconds = STEP_PER_FORWARD * PAIRS_PER_STEP * per_pair
        return LEAST_PROBE_STEPS * step_seconds <= PROBE_SHARE * self.context.budget_seconds

    def probe(self, rates: Sequence[float]) -> float:
        """The rate with the lowest selection loss after its probe; the module is left in that probe's last state."""
        self.trainee.save("initial")
        losses: dict[float, float] = {}
        for rate in rates:
            self.context.report(f"probing rate {rate:g}")
            self.trainee.load("initial")
            self.phase(rate, seconds=PROBE_SHARE * self.context.budget_seconds, decay=False)
            losses[rate] = self.history[-1][2]
            self.trainee.save(f"probe-{rate:g}")
        winner = min(losses, key=lambda rate: losses[rate] if math.isfinite(losses[rate]) else math.inf)
        self.trainee.load(f"probe-{winner:g}" if math.isfinite(losses[winner]) else "initial")
        return winner

    def phase(self, rate: float, *, seconds: float, decay: bool) -> None:
        """Steps until `seconds` are over (one at least), evaluating at intervals and at the end."""
        optimizer = torch.optim.AdamW(self.trainee.parameters.values(), lr=rate, weight_decay=self.weight_decay)
        order = batches(self.fit, self.context.seed)
        began, evaluated, evaluation_seconds, done = self.elapsed, self.elapsed, 0.0, 0
        while True:
            share = min(1.0, (self.elapsed - began + evaluation_seconds) / seconds) if seconds > 0 else 1.0
            cosine = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * (1 + math.cos(math.pi * share)) / 2 if decay else 1.0
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine * min(1.0, (done + 1) / WARMUP_STEPS)
            finite = self._step(optimizer, next(order))
            done, self.steps = done + 1, self.steps + 1
            now = self.elapsed
            over = now - began + evaluation_seconds >= seconds
            interval = max(EVALUATION_SHARE * self.context.budget_seconds, evaluation_seconds / EVALUATION_SHARE)
            if not finite or over or now - evaluated >= interval:
                loss = self._evaluate()
                evaluated = self.elapsed
                evaluation_seconds = evaluated - now
                over = over or evaluated - began + evaluation_seconds >= seconds
                if not finite or not math.isfinite(loss) or over:
                    return

    def _step(self, optimizer: torch.optim.Optimizer, batch: Sequence[Pair]) -> bool:
        """One update; False, and no update, when the loss or its gradient is not finite."""
        self.trainee.module.train()
        optimizer.zero_grad(set_to_none=True)
        tokens_in_step = sum(len(pair.target) for pair in batch)
        for part in _parts(batch):
            loss, _ = self.trainee.loss(part)
            (loss / tokens_in_step).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trainee.parameters.values(), CLIP_NORM)
        if not bool(torch.isfinite(norm)):
            log.warning("the gradient is not finite after %d steps; this phase stops here", self.steps)
            return False
        optimizer.step()
        return True

    def _evaluate(self) -> float:
        loss = self.trainee.selection_loss(self.selection)
        self.history.append((self.elapsed, self.steps, loss))
        log.info("after %d steps: selection loss %.4f", self.steps, loss)
        if loss < self.best_loss:
            self.best_loss = loss
            self.trainee.save("best")
        return loss


def batches(pairs: Sequence[Pair], seed: int) -> Iterator[list[Pair]]:
    """Endless batches; each epoch is shuffled, then pairs of like length are put together to waste little padding."""
    rng = random.Random(seed)
    pool = PAIRS_PER_STEP * 8
    while True:
        order = rng.sample(list(pairs), len(pairs))
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda pair: pair.length)
            cut = [near[at : at + PAIRS_PER_STEP] for at in range(0, len(near), PAIRS_PER_STEP)]
            rng.shuffle(cut)
            yield from cut


def _parts(batch: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Splits a batch so that a forward pass pads to at most `TOKENS_PER_FORWARD` tokens (one pair at least)."""
    widest = max(pair.length for pair in batch)
    rows = max(1, TOKENS_PER_FORWARD // widest)
    for start in range(0, len(batch), rows):
        yield list(batch[start : start + rows])


@contextmanager
def stock_attention(module: Any) -> Iterator[None]:
    """Runs the module with torch's own attention: a rival is trained with what its users have, not with an engine's kernel."""
    current = module.config._attn_implementation
    module.set_attn_implementation(current if current in STOCK_ATTENTION else "sdpa")
    try:
        yield
    finally:
        module.set_attn_implementation(current)


def answer_loss(module: Any) -> Loss:
    """The loss of a causal language model, with logits at the answers only where the model can do that.

    Pairs are padded on the left, so that all answers end in the last column.
    """
    keeps = "logits_to_keep" in inspect.signature(module.forward).parameters
    takes_positions = "position_ids" in inspect.signature(module.forward).parameters

    def loss(pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        device = next(module.parameters()).device
        span = max(len(pair.target) for pair in pairs)
        width = max(pair.length for pair in pairs)
        ids_BT = torch.zeros(len(pairs), width, dtype=torch.long)
        mask_BT = torch.zeros(len(pairs), width, dtype=torch.long)
        wanted_BT = torch.full((len(pairs), span), IGNORED)
        for row, pair in enumerate(pairs):
            ids_BT[row, width - pair.length :] = torch.tensor(pair.prompt + pair.target)
            mask_BT[row, width - pair.length :] = 1
            wanted_BT[row, span - len(pair.target) :] = torch.tensor(pair.target)
        extra: dict[str, Any] = {"logits_to_keep": span + 1} if keeps else {}
        if takes_positions:
            extra["position_ids"] = (mask_BT.cumsum(-1) - 1).clamp(min=0).to(device)
        output = module(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False, **extra)
        logits_BTV = output.logits[:, -span - 1 : -1].float()
        total = cross_entropy(logits_BTV.flatten(0, 1), wanted_BT.flatten().to(device), ignore_index=IGNORED, reduction="sum")
        return total, sum(len(pair.target) for pair in pairs)

    return loss


def peft_loss(peft_model: Any) -> Loss:
    """The loss as PEFT's own documentation trains: labels handed to the wrapped model, padding on the right."""

    def loss(pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        device = next(peft_model.parameters()).device
        width = max(pair.length for pair in pairs)
        ids_BT = torch.zeros(len(pairs), width, dtype=torch.long)
        mask_BT = torch.zeros(len(pairs), width, dtype=torch.long)
        labels_BT = torch.full((len(pairs), width), IGNORED)
        for row, pair in enumerate(pairs):
            ids_BT[row, : pair.length] = torch.tensor(pair.prompt + pair.target)
            mask_BT[row, : pair.length] = 1
            labels_BT[row, len(pair.prompt) : pair.length] = torch.tensor(pair.target)
        output = peft_model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), labels=labels_BT.to(device))
        tokens = sum(len(pair.target) for pair in pairs)
        return output.loss * tokens, tokens

    return loss
