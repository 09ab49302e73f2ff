"""`prefix:NAME` or `prefix:FILE`: another prefix for the same model."""

from __future__ import annotations

from pathlib import Path

from foreword.errors import TuningError
from foreword.prefix.artifact import Prefix
from foreword.prefix.rotary import rotate
from foreword.prefix.store import PrefixStore
from foreword.tuning.fitting import fit_positions
from foreword.tuning.initialisation import Start, StartContext


def start(context: StartContext) -> Start:
    """Keys and values of the named prefix.

    Raises:
        StoreError: there is no prefix of that name.
        PrefixMismatch: it was made for another model.
    """
    if not context.argument:
        raise TuningError("`prefix` needs the name of a prefix or a file after the colon, e.g. `prefix:support`.")
    path = Path(context.argument)
    parent = Prefix.load(path) if path.is_file() else (context.store or PrefixStore()).load(context.argument)
    context.engine.check(parent)
    device = context.engine.module.device
    start = Start(
        # A shifted prefix is turned back to where a start begins.
        key_LHND=rotate(parent.keys(device=device), context.engine.geometry, -parent.header.first_position),
        value_LHND=parent.values(device=device),
        prompt_format=parent.header.prompt_format,
        parents=(parent.header.digest,),
    )
    return fit_positions(context, start)
