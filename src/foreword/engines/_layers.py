"""The model's layers, run otherwise for a while: recomputed in the backward pass, or compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from foreword.errors import ModelError


def layers_of(body: Any, count: int) -> torch.nn.ModuleList:
    """The stack of decoder layers.

    Raises:
        ModelError: the model keeps its layers in no single list.
    """
    for module in body.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(
        f"{type(body).__name__} keeps its {count} layers in no list that Foreword knows; leave out `--checkpointing` and `--compile`."
    )


@contextlib.contextmanager
def recomputing(layers: torch.nn.ModuleList) -> Iterator[None]:
    """Keeps only each layer's input and computes the rest again in the backward pass (Chen et al. 2016).

    transformers' own switch drops the cache, and with it the prefix; this one leaves the arguments alone.
    """
    with contextlib.ExitStack() as stack:
        for layer in layers:
            plain = layer.forward

            def again(*args: Any, plain: Any = plain, **kwargs: Any) -> Any:
                return checkpoint(plain, *args, use_reentrant=False, **kwargs)

            layer.forward = again
            # The instance attribute hid the class's method; taking it away brings that back.
            stack.callback(layer.__dict__.pop, "forward", None)
        yield


@contextlib.contextmanager
def compiled(layers: torch.nn.ModuleList) -> Iterator[None]:
    """Runs the layers through torch.compile, one graph for all of them and for every row length."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
            stack.callback(layer.__dict__.pop, "forward", None)
        yield
