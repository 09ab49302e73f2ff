"""Learns, once for a model, what makes parts that were compiled apart tolerate each other: a header, a trailer, and sharper keys.

The teacher reads several texts joined; the student has each of them compiled alone, side by side (`composing.py`). Both are asked for
sentences of the texts by how they begin. Groups of texts in random number and order are what is learned from: whatever holds for all
groups goes into the header and the trailer, and nothing else can. The weights stay as they are.

Sentences of the texts teach more than the model's own questions and answers do, on which both hardly differ, and cost no
generation (`docs/lab-notes.md`).

After KVLink (Yang et al. 2025), which trains tokens between parts and the model with them, and Cartridges (Eyuboglu et al. 2025) for the
objective.

Axes: L layer, H KV head, N virtual position, D head dimension, T target token, C candidate token.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from foreword.compiling import divergence, source, training
from foreword.compiling.composing import RECIPE_KEY, Split, reserved_name
from foreword.compiling.observer import Observer, Silent
from foreword.engine import Row
from foreword.errors import ConfigError, PrefixError
from foreword.prefix.rotary import rotate
from foreword.tuning.parameters import ScaledOffsets
from foreword.tuning.run_folder import RunFolder
from foreword.tuning.trainer import BatchOrder, Schedule, Trainer
from foreword.types import Message

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

LEARNING_RATE, WARMUP_STEPS, HOLD_SHARE = 0.01, 3, 0.5
BATCH, MICRO_TOKENS = 8, 2048
FIRST_SHARPNESS = 1.05
"""Factor on the parts' keys to begin with (`docs/lab-notes.md`)."""
LEAST_WORDS, BEGINNING_WORDS, SENTENCE_TOKENS = 8, 5, 48
"""Words of a sentence that is asked for, and of its beginning; tokens of it that are compared."""
JUDGED_SHARE = 0.15
"""Of all groups; nothing is fitted to these, and the quality figures come from them. (Their texts may stand in other groups.)"""
_HEADER = "Here are several passages from different sources. Each one stands for itself.\n\n"
_TRAILER = "\n\nNow answer.\n\n"
_ASK = "What does the text say about “{beginning}”?"
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")

KeysValues = tuple[Tensor, Tensor]


class NeighbourSettings(BaseModel):
    """Settings of learning a header and a trailer.

    Attributes:
        header, trailer: positions.
        groups: how many times texts are put side by side in a new choice and order.
        most_parts: texts in a group; there are at least two.
        sentences: of each text of a group that the model is asked for.
        steps: of training.
        seed: of every draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: int = Field(default=16, ge=1, le=256)
    trailer: int = Field(default=6, ge=0, le=256)
    groups: int = Field(default=28, ge=2, le=10_000)
    most_parts: int = Field(default=8, ge=2, le=64)
    sentences: int = Field(default=3, ge=1, le=100)
    steps: int = Field(default=40, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow(Row):
    """A row that stands behind the parts of one group."""

    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Texts side by side: their places among all texts, in order, and what the model says behind them joined."""

    members: tuple[int, ...]
    taught: divergence.Taught


class FrameParameters:
    """Header and trailer as offsets from a start, and the factors on the parts' keys (see `foreword.tuning.parameters`)."""

    def __init__(self, start: KeysValues, header: int) -> None:
        self._offsets = ScaledOffsets(*start)
        layers, heads = start[0].shape[:2]
        self.header = header
        self.sharpness_LH = nn.Parameter(torch.full((layers, heads), FIRST_SHARPNESS, device=start[0].device))

    def keys_values(self) -> KeysValues:
        return self._offsets.keys_values()

    def tensors(self) -> dict[str, nn.Parameter]:
        return {**self._offsets.tensors(), "sharpness": self.sharpness_LH}


def side_by_side(
    engine: CompilingEngine, parts: Sequence[KeysValues], header: KeysValues, trailer: KeysValues | None, sharpness_LH: Tensor | None
) -> KeysValues:
    """What `composing.compose_parts` makes of parts, as tensors through which gradients flow to header, trailer and factors.

    Args:
        parts: each with its sink first, at positions 0, 1, …
        header: at positions 0, 1, …
        trailer: at the positions behind the header.
    """
    dtype, geometry = parts[0][0].dtype, engine.geometry
    keys, values = [header[0].to(dtype)], [header[1].to(dtype)]
    first = end = header[0].shape[2]
    for key_LHND, value_LHND in parts:
        keys.append(rotate(key_LHND[:, :, 1:], geometry, end - 1))
        values.append(value_LHND[:, :, 1:])
        end += key_LHND.shape[2] - 1
    if sharpness_LH is not None:
        keys[1:] = [(key_LHND * sharpness_LH[:, :, None, None]).to(dtype) for key_LHND in keys[1:]]
    if trailer is not None:
        keys.append(rotate(trailer[0], geometry, end - first).to(dtype))
        values.append(trailer[1].to(dtype))
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


class Beside:
    """An objective (see `foreword.tuning.objective`): the divergence from what the model says behind the joined texts."""

    def __init__(self, parts: Sequence[KeysValues], groups: Sequence[Group], parameters: FrameParameters) -> None:
        self._parts, self._groups, self._parameters = parts, groups, parameters

    def loss(self, engine: Any, rows: Sequence[Row], key_LHND: Tensor, value_LHND: Tensor) -> Tensor:
        """Scalar, in nats, summed over targets."""
        by_group: dict[int, list[GroupRow]] = {}
        for row in rows:
            assert isinstance(row, GroupRow)
            by_group.setdefault(row.group, []).append(row)
        losses = []
        for place, several in by_group.items():
            group = self._groups[place]
            tensors = self.tensors(engine, group, key_LHND, value_LHND)
            losses.append(divergence.Divergence(group.taught).loss(engine, several, *tensors))
        return torch.stack(losses).sum()

    def tensors(self, engine: Any, group: Group, key_LHND: Tensor, value_LHND: Tensor) -> KeysValues:
        """The composition of a group behind a header and before a trailer, which stand one behind the other in the arguments."""
        cut = self._parameters.header
        header, trailer = (key_LHND[:, :, :cut], value_LHND[:, :, :cut]), (key_LHND[:, :, cut:], value_LHND[:, :, cut:])
        parts = [self._parts[member] for member in group.members]
        return side_by_side(engine, parts, header, trailer if trailer[0].shape[2] else None, self._parameters.sharpness_LH)


class GroupOrder(BatchOrder):
    """One group a step, and of its rows as many as a batch holds: putting a composition together costs as much as a row."""

    def __init__(self, groups: Sequence[Group], *, seed: int) -> None:
        super().__init__([row for group in groups for row in group.taught], batch_targets=BATCH, seed=seed)
        self._groups, self._drawn_by = groups, seed

    def batch(self, step: int) -> list[Row]:
        draw = random.Random(f"{self._drawn_by} {step}")
        rows = list(draw.choice(self._groups).taught)
        return draw.sample(rows, min(BATCH, len(rows)))


def learn_header_trailer(
    engine: CompilingEngine,
    texts: Sequence[str],
    *,
    settings: NeighbourSettings = NeighbourSettings(),  # noqa: B008 (frozen)
    observer: Observer = Silent(),  # noqa: B008 (stateless)
    folder: Path | None = None,
) -> Prefix:
    """The header and trailer of a model, under its reserved name; to be handed to `composing.compose_parts`.

    Its quality figures are measured on groups that nothing was fitted to: nats per token from the joined texts, with header and trailer
    (`nats`) and without (`nats_plain`).

    Args:
        texts: any, of the kind and length that will be composed; a few dozen are enough, and two the least.
        folder: where it keeps what it needs to go on after an interruption.

    Raises:
        ConfigError: fewer than two texts, or texts so long that no two fit the window.
        PrefixError: a text is empty, or the model has absolute position embeddings, so that no part can stand in another place.
        TuningError: `folder` holds other work, or cannot be written.
    """
    if not engine.geometry.rotary:
        raise PrefixError(f"`{engine.name}` has absolute position embeddings: its parts cannot be moved, so there is nothing to compose.")
    if len(texts) < 2:
        raise ConfigError(f"What neighbours do to each other shows from two texts on; got {len(texts)}. Give a few dozen.")
    work = _Work(engine, [text.strip() + "\n\n" for text in texts], settings, observer, RunFolder(folder))
    return work.learned()


class _Work:
    """The texts, what the model asks about them, the groups, and what of it an interrupted run has done."""

    def __init__(
        self, engine: CompilingEngine, texts: Sequence[str], settings: NeighbourSettings, observer: Observer, run: RunFolder
    ) -> None:
        self._engine, self._settings, self._observer, self._run = engine, settings, observer, run
        self._rows = [_sentences(engine, text) for text in texts]
        self._ids = [source.tokens_of(engine, text, chat=False) for text in texts]
        self._sha256 = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        run.begin(
            {
                "learns": "header and trailer",
                "texts": self._sha256,
                "settings": settings.model_dump(mode="json"),
                "dtype": str(engine.module.dtype),
                "model": engine.fingerprint.model_dump(),
            }
        )

    def learned(self) -> Prefix:
        self._tensors: dict[str, Tensor] = {}
        self._about: dict[str, Any] = {"step": 0}
        if (kept := self._run.load_state()) is not None:
            self._tensors, self._about = kept
            self._observer.note(f"Going on after an interruption at step {self._about['step']}.")
        chosen = _choose(self._engine, self._ids, self._settings, room=max(row.fed_tokens for rows in self._rows for row in rows))
        parts = self._read()
        groups = self._taught(chosen)
        judged = max(1, round(JUDGED_SHARE * len(groups)))
        parameters = self._trained(parts, groups, fitted=groups[judged:])
        prefix = self._prefix(parameters, self._judged(parts, groups[:judged], parameters))
        self._run.drop_state()
        return prefix

    def _read(self) -> list[KeysValues]:
        self._observer.stage("reading the texts", len(self._ids))
        found = []
        for ids in self._ids:
            found.append(self._engine.read(ids))
            self._observer.advance(1)
        return found

    def _taught(self, chosen: Sequence[tuple[int, ...]]) -> list[Group]:
        """What the model says behind the texts of each group joined."""
        rows = self._rows
        self._observer.stage("reading texts joined", len(chosen))
        groups = []
        for place, members in enumerate(chosen):
            draw = random.Random(f"{self._settings.seed} rows {place}")
            some = [row for member in members for row in draw.sample(rows[member], min(self._settings.sentences, len(rows[member])))]
            placed = [GroupRow(prompt=row.prompt, targets=row.targets, group=place) for row in dict.fromkeys(some)]
            joint = self._engine.read(_joined(self._engine, [self._ids[member] for member in members]))
            groups.append(Group(members=members, taught=divergence.teach(self._engine, placed, *joint)))
            self._observer.advance(1)
        return groups

    def _trained(self, parts: Sequence[KeysValues], groups: Sequence[Group], *, fitted: Sequence[Group]) -> FrameParameters:
        settings = self._settings
        parameters = FrameParameters(_start(self._engine, settings), settings.header)
        schedule = Schedule(peak=LEARNING_RATE, warmup=WARMUP_STEPS, hold=int(HOLD_SHARE * settings.steps), total=settings.steps)
        order = GroupOrder(fitted, seed=settings.seed)
        trainer = Trainer(self._engine, Beside(parts, groups, parameters), parameters, order, schedule, micro_tokens=MICRO_TOKENS)
        training.go_on(trainer, self._tensors, step=self._about["step"])
        training.train(trainer, settings.steps, self._observer, self._save)
        return parameters

    def _save(self, state: dict[str, Tensor], step: int) -> None:
        self._tensors, self._about["step"] = state, step
        self._run.save_state(self._tensors, self._about)

    def _judged(self, parts: Sequence[KeysValues], groups: Sequence[Group], parameters: FrameParameters) -> dict[str, float]:
        objective = Beside(parts, groups, parameters)
        plain, framed = [], []
        self._observer.stage("measuring", len(groups))
        with torch.no_grad():
            learned = parameters.keys_values()
            for group in groups:
                lead = parts[group.members[0]]
                sink = (lead[0][:, :, :1], lead[1][:, :, :1])
                beside = side_by_side(self._engine, [parts[member] for member in group.members], sink, None, None)
                plain.append(divergence.mean_divergence(self._engine, group.taught, *beside))
                framed.append(divergence.mean_divergence(self._engine, group.taught, *objective.tensors(self._engine, group, *learned)))
                self._observer.advance(1)
        figures = {"nats": float(torch.cat(framed).mean()), "nats_plain": float(torch.cat(plain).mean())}
        if figures["nats"] >= figures["nats_plain"]:
            self._observer.note(
                f"What was learned is no better than plain composition ({figures['nats']:.3f} against {figures['nats_plain']:.3f} nats per "
                "token on groups kept back). Give more texts, or compose without it."
            )
        return figures

    def _prefix(self, parameters: FrameParameters, quality: dict[str, float]) -> Prefix:
        from foreword.prefix.artifact import Prefix

        settings = self._settings
        key_LHND, value_LHND = (tensor.detach() for tensor in parameters.keys_values())
        sharpness = tuple(tuple(round(float(factor), 5) for factor in row) for row in parameters.sharpness_LH.detach())
        split = Split(header=settings.header, trailer=settings.trailer, sharpness=sharpness)
        dtype = self._engine.module.dtype
        return Prefix.make(
            name=reserved_name(self._engine.fingerprint),
            kind="learned",
            key_LHND=key_LHND.to(dtype),
            value_LHND=value_LHND.to(dtype),
            fingerprint=self._engine.fingerprint,
            geometry=self._engine.geometry,
            prompt_format="continuation",
            sink=settings.header,
            training_data=self._sha256,
            recipe={RECIPE_KEY: split.as_json(), "texts": len(self._ids), "settings": settings.model_dump(mode="json")},
            seed=settings.seed,
            quality=quality,
        )


def _choose(engine: CompilingEngine, ids: Sequence[tuple[int, ...]], settings: NeighbourSettings, *, room: int) -> list[tuple[int, ...]]:
    """Which texts make up each group, in order: two or more, as many as are drawn and fit the window with `room` positions behind them."""
    most = engine.window - settings.header - settings.trailer - room
    chosen = []
    for place in range(settings.groups):
        draw = random.Random(f"{settings.seed} group {place}")
        wanted = draw.randint(2, min(settings.most_parts, len(ids)))
        members: list[int] = []
        filled = 0
        for member in draw.sample(range(len(ids)), len(ids)):
            if len(members) < wanted and filled + len(ids[member]) <= most:
                members.append(member)
                filled += len(ids[member])
        if len(members) < 2:
            raise ConfigError(
                f"The texts are so long that no two fit the window of `{engine.name}` ({engine.window:,}) with questions behind them. "
                "Give shorter ones, or parts of them."
            )
        chosen.append(tuple(members))
    return chosen


def _joined(engine: Any, several: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Token ids of texts one after the other; BOS, where the tokenizer puts one before a text, stands once."""
    bos = engine.tokenizer.bos_token_id
    later = [ids[1:] if bos is not None and ids[:1] == (bos,) else ids for ids in several[1:]]
    return sum(later, tuple(several[0]))


def _sentences(engine: CompilingEngine, text: str) -> list[Row]:
    """Requests for the sentences of a text by how they begin; for a text of short ones, the request for the whole of it."""
    pieces = [" ".join(piece.split()) for piece in _SENTENCE.split(text)]
    rows = []
    for piece in [piece for piece in pieces if len(piece.split()) >= LEAST_WORDS] or [" ".join(text.split())]:
        beginning = " ".join(piece.split()[:BEGINNING_WORDS])
        turn = Message(role="user", content=_ASK.format(beginning=beginning))
        asked = engine.render((turn,), prompt_format="continuation")
        rows.append(Row(prompt=asked, targets=(engine.answer_ids(piece)[:SENTENCE_TOKENS],)))
    return rows


def _start(engine: CompilingEngine, settings: NeighbourSettings) -> KeysValues:
    """Where header and trailer begin: neutral words, as often as there is room for."""
    header_ids = source.tokens_of(engine, _HEADER * (1 + settings.header // 8), chat=False)[: settings.header]
    header = engine.read(header_ids)
    trailer_ids = engine.encode(_TRAILER * (1 + settings.trailer // 4))[: settings.trailer]
    if not trailer_ids:
        return header
    trailer = engine.read(trailer_ids, behind=header)
    return torch.cat([header[0], trailer[0]], dim=2), torch.cat([header[1], trailer[1]], dim=2)
