"""The learned router as it is served: one logistic regression for each tier over a question's vector and markers, and a price on dearness.

    router = Router.read(Path("router.safetensors"), embedder)
    router.choose("What is 17 * 23?", vector_D, among=(0, 1)).tier

It takes the tier k with the highest p_k - frugality * cost_k / cost_reference: what is expected of it, less what it costs. `cost_k` grows
with the question's length as it did in the table; the reference is the tier that succeeded most often there. With a frugality of 0 the
likeliest success is taken, whatever it costs. As in RouteLLM (Ong et al. 2024, §3) the choice is made before any model is asked; there, two
models have one price each.

Axes: K tier, D dimension, M marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foreword.errors import ConfigError
from foreword.gateway.routing.markers import NAMES, VERSION, markers
from foreword.store.versions import write_temporary

if TYPE_CHECKING:
    from foreword.retrieval.embedder import Embedder

MOST_BYTES = 64 * 2**20
MOST_DEVIATIONS = 5.0
"""How far from the table's mean a marker may count, in standard deviations."""
_HEADER = "foreword-router"
_AGAIN = "Fit it again: foreword route fit."


@dataclass(frozen=True, slots=True)
class Choice:
    """A tier, its place among the router's, and the success expected of it."""

    tier: str
    place: int
    probability: float


class RouterHeader(BaseModel):
    """What stands beside a router's numbers.

    Attributes:
        embedder: whose vectors it takes.
        tiers: cheapest first.
        reference: the tier that succeeded most often.
        keep: share of the reference's successes that `frugality` was chosen to keep.
        held_out: share of the table that nothing was learned from.
        table: the table's digest.
        measured: what `foreword route fit` found; nothing depends on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    markers: Literal[1] = VERSION
    embedder: str
    tiers: Annotated[tuple[str, ...], Field(min_length=2)]
    reference: str
    reference_cost: Annotated[float, Field(gt=0)]
    frugality: Annotated[float, Field(ge=0)]
    keep: Annotated[float, Field(gt=0, le=1)]
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    table: str = ""
    measured: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fit(self) -> RouterHeader:
        if len(set(self.tiers)) < len(self.tiers):
            raise ValueError("`tiers` names a model twice")
        if self.reference not in self.tiers:
            raise ValueError("`reference` is none of `tiers`")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Router:
    """A predictor of success, and how it chooses.

    Attributes:
        weights_KD: of the question's vector; `weights_KM` of its markers, `bias_K` of nothing.
        mean_M, spread_M: of the table's markers.
        cost_K3: of a request: at no length, for each character more, and at least.
    """

    header: RouterHeader
    weights_KD: np.ndarray
    weights_KM: np.ndarray
    bias_K: np.ndarray
    mean_M: np.ndarray
    spread_M: np.ndarray
    cost_K3: np.ndarray
    _dearness_K3: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dearness_K3", self.cost_K3 * (self.header.frugality / self.header.reference_cost))

    @property
    def tiers(self) -> tuple[str, ...]:
        """Cheapest first."""
        return self.header.tiers

    def probabilities(self, question: str, vector_D: np.ndarray) -> np.ndarray:
        """The success K that is expected of each tier."""
        seen_M = (markers(question) - self.mean_M) / self.spread_M
        np.minimum(seen_M, MOST_DEVIATIONS, out=seen_M)
        np.maximum(seen_M, -MOST_DEVIATIONS, out=seen_M)
        return 1.0 / (1.0 + np.exp(-(self.weights_KD @ vector_D + self.weights_KM @ seen_M + self.bias_K)))

    def costs(self, length: int) -> np.ndarray:
        """What a request K of so many characters costs."""
        return _at(self.cost_K3, length)

    def choose(self, question: str, vector_D: np.ndarray, among: Sequence[int]) -> Choice:
        """The tier to begin with. Args: among: places in `tiers`, cheapest first; of equally good ones the first is taken."""
        expected_K = self.probabilities(question, vector_D)
        worth_K = expected_K - _at(self._dearness_K3, len(question))
        place = max(among, key=worth_K.__getitem__)
        return Choice(self.header.tiers[place], place, float(expected_K[place]))

    def frugal(self, frugality: float, **header: Any) -> Router:
        """The same with another frugality. Args: header: further fields of the header."""
        return replace(self, header=self.header.model_copy(update={"frugality": frugality, **header}))

    def write(self, path: Path) -> None:
        """Writes it to one file, whole or not at all. Raises `ConfigError`: the place cannot be written to."""
        from safetensors.numpy import save

        content = save({name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}, {_HEADER: self.header.model_dump_json()})
        try:
            write_temporary(path, content).replace(path)
        except OSError as error:
            raise ConfigError(f"The router {path} cannot be written: {error.strerror or error}. Choose another place.") from None

    @classmethod
    def read(cls, path: Path, embedder: Embedder) -> Router:
        """The router in a file. Raises `ConfigError`: it cannot be read, or takes another embedder's vectors."""
        from safetensors import SafetensorError, safe_open

        try:
            if path.stat().st_size > MOST_BYTES:
                raise ConfigError(f"{path} is larger than any router. {_AGAIN}")
            with safe_open(path, framework="np") as file:
                header = RouterHeader.model_validate_json((file.metadata() or {}).get(_HEADER, "null"))
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
        except OSError as error:
            raise ConfigError(f"The router {path} cannot be read: {error.strerror or error}. {_AGAIN}") from None
        except (SafetensorError, ValidationError, ValueError) as error:
            raise ConfigError(f"{path} is no router: {_reason(error)}. {_AGAIN}") from None
        if header.embedder != embedder.name:
            raise ConfigError(f"{path} takes vectors of the embedder `{header.embedder}`, and this one is `{embedder.name}`. {_AGAIN}")
        _check(path, header, tensors, embedder.dimensions)
        return cls(header=header, **tensors)


_TENSORS = ("weights_KD", "weights_KM", "bias_K", "mean_M", "spread_M", "cost_K3")


def _at(cost_K3: np.ndarray, length: int) -> np.ndarray:
    return np.maximum(cost_K3[:, 0] + cost_K3[:, 1] * length, cost_K3[:, 2])


def _check(path: Path, header: RouterHeader, tensors: dict[str, np.ndarray], dimensions: int) -> None:
    tiers, seen = len(header.tiers), len(NAMES)
    shapes = ((tiers, dimensions), (tiers, seen), (tiers,), (seen,), (seen,), (tiers, 3))
    for name, shape in zip(_TENSORS, shapes, strict=True):
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
            raise ConfigError(f"{path} is no router: `{name}` must be finite numbers of shape {shape}, and is of {tensor.shape}. {_AGAIN}")
    if not (tensors["spread_M"] > 0).all():
        raise ConfigError(f"{path} is no router: `spread_M` must be above 0. {_AGAIN}")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"its header's `{'.'.join(map(str, problem['loc'])) or 'whole'}`: {problem['msg']}"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
