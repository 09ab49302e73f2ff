"""Where all users' prefixes start, and what stands in front of them.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.data.dataset import Dataset
from foreword.engine import Differentiable
from foreword.errors import WindowError
from foreword.prefix.artifact import Prefix, tensor_bytes
from foreword.prefix.header import PromptFormat
from foreword.prefix.rotary import rotate
from foreword.prefix.store import PrefixStore
from foreword.tuning import initialisation
from foreword.tuning.fitting import SINK
from foreword.tuning.initialisation import StartContext
from foreword.tuning.instruction import instruction_for
from foreword.tuning.personal_block import Ground
from foreword.tuning.personal_settings import PersonalSettings

PREFIX = "prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all users share.

    Attributes:
        about: the start, for the recipe; the digest tells starts apart that are called the same.
    """

    ground: Ground
    prompt_format: PromptFormat
    parents: tuple[str, ...]
    instruction: str | None
    about: dict[str, Any]


def common_start(engine: Differentiable, train: Dataset, settings: PersonalSettings, store: PrefixStore | None) -> Common:
    """Makes the start that `settings` name, and loads what stands in front of it.

    Args:
        train: training rows of all users, from which a start may draw; none of them is a dev row.
        store: where names of prefixes are looked up; the default one where it is missing.

    Raises:
        RegistryError, TuningError: there is no such start, or it has too few positions.
        StoreError, PrefixFileError, PrefixMismatch: a prefix that is named is not there, not sound, or for another model.
        WindowError: what stands in front leaves too little room.
    """
    front = None if settings.behind is None else _load(settings.behind.removeprefix(f"{PREFIX}:"), engine, store)
    taken = 0 if front is None else front.positions
    # The start's own sink gives way to the front's.
    wanted = settings.positions + (SINK if front is not None else 0)
    room = (engine.window - taken) // 2
    if room < wanted:
        raise WindowError(
            f"{taken} positions in front and {settings.positions} of each user leave too little of the window of {engine.window}. "
            "Lower `--positions`, or take a shorter prefix in front."
        )
    key, _, argument = settings.start.partition(":")
    if key == PREFIX and argument:
        argument = str(_file(argument, store))
    context = StartContext(
        engine=engine,
        train=train,
        instruction=settings.instruction,
        positions=wanted,
        argument=argument or None,
        seed=settings.seed,
        room=room,
    )
    start = initialisation.get(key).start(context)
    ground = Ground(key_LHND=start.key_LHND.float(), value_LHND=start.value_LHND.float())
    if front is not None:
        ground = _behind(ground, front, engine)
    return Common(
        ground=ground,
        prompt_format=start.prompt_format if front is None else front.header.prompt_format,
        parents=(*(() if front is None else (front.header.digest,)), *start.parents),
        # A prefix that is gone on from brings its own.
        instruction=settings.instruction if key == PREFIX else instruction_for(train, settings.instruction),
        about={"initialisation": settings.start, "behind": settings.behind, "digest": _digest(ground)},
    )


def _behind(ground: Ground, front: Prefix, engine: Differentiable) -> Ground:
    """The start without its sink, its keys turned to follow `front`, as a composition of the two would have them."""
    device, geometry = engine.module.device, engine.geometry
    # As it will be served: in the model's dtype, from position 0 on.
    front_key_LHND = rotate(front.keys(device=device), geometry, -front.header.first_position).to(engine.module.dtype).float()
    key_LHND = ground.key_LHND[:, :, SINK:]
    if geometry.rotary:
        key_LHND = rotate(key_LHND, geometry, front.positions - SINK)
    return Ground(
        key_LHND=key_LHND.contiguous(),
        value_LHND=ground.value_LHND[:, :, SINK:].contiguous(),
        front=(front_key_LHND, front.values(engine.module.dtype, device).float()),
    )


def _digest(ground: Ground) -> str:
    total = hashlib.sha256()
    for tensor in (ground.key_LHND, ground.value_LHND, *(ground.front or ())):
        total.update(tensor_bytes(tensor))
    return total.hexdigest()


def _file(ref: str, store: PrefixStore | None) -> Path:
    path = Path(ref)
    return path if path.is_file() else (store or PrefixStore()).resolve(ref).path


def _load(ref: str, engine: Differentiable, store: PrefixStore | None) -> Prefix:
    prefix = Prefix.load(_file(ref, store))
    engine.check(prefix)
    return prefix
