"""`random`: normal numbers with the size that keys and values of real text have in each layer and head.

Kept for comparison: it starts higher and often stays on the chance plateau. The first position is still that of a
real text's first token, the attention sink without which everything after it is disturbed.
"""

from __future__ import annotations

import torch

from foreword.errors import TuningError
from foreword.tuning.initialisation import Start, StartContext
from foreword.tuning.instruction import instruction_for
from foreword.types import Message

DEFAULT_POSITIONS = 32


def start(context: StartContext) -> Start:
    """Random keys and values behind one real sink position."""
    positions = context.positions or min(DEFAULT_POSITIONS, context.room)
    if positions > context.room:
        raise TuningError(f"{positions} positions are wanted; {context.room} leave room for the longest example. Lower `--positions`.")
    text = instruction_for(context.train, context.instruction)
    real = context.engine.read(context.engine.render_context((Message(role="system", content=text),)))
    draw = torch.Generator().manual_seed(context.seed)
    made = []
    for tensor_LHND in real:
        size = tensor_LHND[:, :, 1:].float().std(dim=2, keepdim=True)
        shape = (*tensor_LHND.shape[:2], positions - 1, tensor_LHND.shape[3])
        noise = torch.randn(shape, generator=draw).to(size.device) * size
        made.append(torch.cat([tensor_LHND[:, :, :1].float(), noise], dim=2))
    return Start(key_LHND=made[0], value_LHND=made[1], prompt_format="continuation")
