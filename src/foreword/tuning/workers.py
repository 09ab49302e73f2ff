"""Data parallelism: every worker holds the frozen model, and only the prefix's gradient is summed between them.

Started by `torchrun --nproc-per-node N -m foreword tune …`. Each worker computes its share of every batch; the rest
of the run (order, schedule, choices) is a function of the seed, so the workers stay in step without further talk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """This process's place among its peers."""

    rank: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls) -> Workers:
        """Joins the group that `torchrun` started, or stands alone."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if not torch.distributed.is_initialized():
            # Numbers are summed on the CPU, gradients where they lie.
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return cls(rank=torch.distributed.get_rank(), count=count)

    @property
    def leads(self) -> bool:
        """Whether this worker writes files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's part."""
        return items[self.rank :: self.count]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sums each tensor over all workers, in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def sum(self, value: float) -> float:
        """Sums a number over all workers."""
        if self.count == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return float(total)

    def agree(self, number: int) -> int:
        """The leader's number: what was measured differs between workers, what is planned from it must not."""
        if self.count == 1:
            return number
        agreed = torch.tensor([number])
        torch.distributed.broadcast(agreed, src=0)
        return int(agreed)
