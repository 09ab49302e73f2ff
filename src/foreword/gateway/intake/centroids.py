"""Which task type a question is most like: the nearest centroid of labelled lines, by cosine (Rocchio's classifier), helped by the lines.

A centroid is the mean of the vectors of one type's lines. A type that holds many kinds of questions has its centroid far from each of
them, so half of the likeness is that to the type's nearest line. A question whose best likeness is below the threshold is like nothing
that was labelled, and becomes no type by it. `training.py` makes the centroids and chooses the threshold.

Axes: C task type, N line, D dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foreword.errors import ConfigError
from foreword.store.versions import write_temporary

if TYPE_CHECKING:
    from foreword.retrieval.embedder import Embedder

MOST_BYTES = 256 * 2**20


class CentroidFile(BaseModel):
    """What `foreword path train-intake` writes: JSON.

    Attributes:
        embedder: whose vectors these are; those of another do not compare.
        labels: task types.
        lines: how many lines each of them had.
        centroids: C D, of length 1.
        vectors: of lines, for each type those of its first ones, of length 1.
        threshold: likeness from which a question is of its nearest type.
        measured: what cross-validation said; nothing depends on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    embedder: str
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    lines: tuple[int, ...]
    centroids: tuple[tuple[float, ...], ...]
    vectors: tuple[Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)], ...]
    threshold: Annotated[float, Field(ge=-1, le=1)]
    measured: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fit(self) -> CentroidFile:
        if not len(self.labels) == len(self.lines) == len(self.centroids) == len(self.vectors):
            raise ValueError("`labels`, `lines`, `centroids` and `vectors` differ in length")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("`labels` names a task type twice")
        if len({len(vector) for vectors in (self.centroids, *self.vectors) for vector in vectors}) > 1:
            raise ValueError("`centroids` and `vectors` differ in their dimensions")
        return self

    def write(self, path: Path) -> None:
        """Writes it whole or not at all. Raises `OSError`."""
        write_temporary(path, self.model_dump_json().encode()).replace(path)


class Centroids:
    """The classifier."""

    def __init__(self, file: CentroidFile) -> None:
        self.labels, self.threshold = file.labels, file.threshold
        self._centroids_CD = np.array(file.centroids, dtype=np.float32)
        self._lines_ND = np.array([vector for vectors in file.vectors for vector in vectors], dtype=np.float32)
        self._starts_C = np.cumsum([0, *(len(vectors) for vectors in file.vectors[:-1])])

    @classmethod
    def read(cls, path: Path, embedder: Embedder) -> Centroids:
        """The classifier in a file. Raises `ConfigError`: it cannot be read, or was made by another embedder."""
        file = read_file(path)
        if (file.embedder, len(file.centroids[0])) != (embedder.name, embedder.dimensions):
            raise ConfigError(
                f"{path} was trained with the embedder `{file.embedder}`, and this one is `{embedder.name}`. "
                "Train it again: foreword path train-intake."
            )
        return cls(file)

    def nearest(self, vector_D: np.ndarray) -> tuple[str, float]:
        """The task type most alike, and how much, 1 at most."""
        likeness_C = (self._centroids_CD @ vector_D + np.maximum.reduceat(self._lines_ND @ vector_D, self._starts_C)) / 2
        place = int(likeness_C.argmax())
        return self.labels[place], float(likeness_C[place])

    def label(self, vector_D: np.ndarray) -> str | None:
        """The task type; None for a question that is like none of them."""
        label, likeness = self.nearest(vector_D)
        return label if likeness >= self.threshold and vector_D.any() else None


def read_file(path: Path) -> CentroidFile:
    """What a file holds. Raises `ConfigError`."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} is larger than any intake model. Train one: foreword path train-intake.")
        return CentroidFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"The intake model {path} cannot be read: {error.strerror or error}. Train one: foreword path train-intake."
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the whole"
        raise ConfigError(f"{path} is no intake model: `{place}`: {problem['msg']}. Train one: foreword path train-intake.") from None
