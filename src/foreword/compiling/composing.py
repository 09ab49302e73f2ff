"""Parts that were compiled apart, as one prefix: behind a learned header, and with a learned trailer between them and the prompt.

Plain composition (`prefix/operations.py`) keeps one attention sink and turns every part to its new place. What then still parts it from
the joined text is that no part has seen another. What was learned once for a model (`neighbours.py`) makes up for some of that: a few
positions before and behind the parts, whatever the parts are, and for each layer and KV head a factor on the parts' keys. Parts that
were read alone are attended too evenly, and keys that are a little longer sharpen that again (Yang et al., APE, 2025, lower the
temperature of all heads alike).

    [ header | part 1 | part 2 | … | trailer ]  prompt …

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foreword.errors import PrefixError
from foreword.prefix.relevance import joined

if TYPE_CHECKING:
    from pydantic import JsonValue

    from foreword.engine import TakesPrefix
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.header import Fingerprint, PrefixHeader

RECIPE_KEY = "header_trailer"
"""Under which a recipe says how a prefix is divided: positions of header and trailer, and the factors on the parts' keys."""

FROM_PARTS = 5
"""Number of parts from which a learned header and trailer are worth it: on gold answers eight parts lose less with them than without, and
two and four lose more (`benchmarks/results/composing.json`). It is the caller who decides; the command line goes by this."""


def reserved_name(fingerprint: Fingerprint) -> str:
    """The name under which a model's learned header and trailer are kept in a store."""
    return f"composing-{fingerprint.weights[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How many positions header and trailer have, and how much longer the parts' keys become.

    Attributes:
        sharpness: one factor for each layer and KV head, layer by layer; None for none.
    """

    header: int
    trailer: int
    sharpness: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def of(cls, header: PrefixHeader) -> Split | None:
        """What a prefix's recipe says; None where it speaks of no header and trailer.

        Raises:
            PrefixError: the recipe does not fit the prefix.
        """
        said: Any = header.recipe.get(RECIPE_KEY)
        if said is None:
            return None
        try:
            sharpness = said.get("sharpness")
            split = cls(header=said["header"], trailer=said["trailer"], sharpness=sharpness and tuple(map(tuple, sharpness)))
            split._check(header)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PrefixError(f"`{header.name}` does not say how it divides into header and trailer ({error}); learn it again.") from None
        return split

    def _check(self, header: PrefixHeader) -> None:
        if not all(type(number) is int for number in (self.header, self.trailer)) or self.header < 1 or self.trailer < 0:
            raise ValueError(f"positions {self.header!r:.20} and {self.trailer!r:.20}")
        if self.header + self.trailer > header.positions:
            raise ValueError(f"{self.header} + {self.trailer} of {header.positions} positions")
        shape = (header.geometry.layers, header.geometry.kv_heads)
        if self.sharpness is not None and tuple(torch.tensor(self.sharpness).shape) != shape:
            raise ValueError(f"factors for other than {shape[0]} layers of {shape[1]} heads")

    def as_json(self) -> dict[str, JsonValue]:
        """For a recipe."""
        sharpness: list[JsonValue] | None = None if self.sharpness is None else [list(row) for row in self.sharpness]
        return {"header": self.header, "trailer": self.trailer, "sharpness": sharpness}


def compose_parts(
    engine: TakesPrefix,
    parts: Sequence[Prefix],
    *,
    name: str,
    header_trailer: Prefix | None = None,
    window: int | None = None,
) -> Prefix:
    """One prefix of several, in the order given.

    Every part but the first loses its own sink; the first one too where there is a header, whose first position is the sink then. A
    part that was itself composed loses its old trailer, and with a new header its old one. The result's recipe says what it was made of.

    Args:
        engine: the model that the parts are for.
        header_trailer: what `neighbours.learn_header_trailer` gave for this model; without it this is plain composition.
        window: positions that the model can attend; by default the engine's.

    Raises:
        PrefixMismatch: a part, or the header and trailer, were made for another model.
        PrefixError: no parts; prompt formats differ; `header_trailer` is no such thing; or the model has absolute position embeddings.
        WindowError: the composition leaves no room for a prompt.
    """
    from foreword.prefix.operations import compose

    for part in (*parts, *([header_trailer] if header_trailer is not None else [])):
        engine.check(part)
    window = engine.window if window is None else window
    bare = [_without_trailer(part) for part in parts]
    if header_trailer is None or not parts:
        return _described(compose(bare, name, window=window), parts)
    split = Split.of(header_trailer.header)
    if split is None or split.header + split.trailer != header_trailer.positions:
        raise PrefixError(
            f"`{header_trailer.name}` ({header_trailer.header.kind}, {header_trailer.positions} positions) is no learned header and "
            "trailer; learn one for this model first."
        )
    like = parts[0].header.prompt_format
    header = _part_of(header_trailer, 0, split.header, sink=split.header, prompt_format=like)
    trailer = _part_of(header_trailer, split.header, header_trailer.positions, sink=0, prompt_format=like)
    sharp = [_sharpened(part, split) for part in bare]
    return _described(compose([header, *sharp, trailer], name, window=window), parts, split, header_trailer)


def _without_trailer(part: Prefix) -> Prefix:
    """A part as it is, or without the trailer that an earlier composition put behind it; its header counts as its sink."""
    split = Split.of(part.header)
    if split is None or not split.trailer:
        return part
    return _part_of(part, 0, part.positions - split.trailer, sink=part.header.sink, prompt_format=part.header.prompt_format)


def _sharpened(part: Prefix, split: Split) -> Prefix:
    """A part with longer keys, unless an earlier composition has done that."""
    if split.sharpness is None or Split.of(part.header) is not None or RECIPE_KEY in part.header.recipe:
        return part
    factor_LH = torch.tensor(split.sharpness, device=part.key_LHND.device)
    key_LHND = part.keys(torch.float32) * factor_LH[:, :, None, None]
    return _remade(part, key_LHND.to(part.keys().dtype), part.values(), sink=part.header.sink, prompt_format=part.header.prompt_format)


def _part_of(prefix: Prefix, start: int, stop: int, *, sink: int, prompt_format: Any) -> Prefix:
    """Positions start..stop-1 as a prefix of their own."""
    keys, values = prefix.keys()[:, :, start:stop], prefix.values()[:, :, start:stop]
    return _remade(prefix, keys, values, sink=sink, prompt_format=prompt_format, first=prefix.header.first_position + start)


def _remade(prefix: Prefix, key_LHND: Tensor, value_LHND: Tensor, *, sink: int, prompt_format: Any, first: int | None = None) -> Prefix:
    from foreword.prefix.artifact import Prefix

    header = prefix.header
    return Prefix.make(
        name=header.name,
        kind=header.kind,
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=header.fingerprint,
        geometry=header.geometry,
        prompt_format=prompt_format,
        sink=sink,
        first_position=header.first_position if first is None else first,
        recipe=header.recipe,
        licence=header.licence,
        text_tail=header.text_tail,
        instruction=header.instruction,
        training_data=header.training_data,
    )


def _described(whole: Prefix, parts: Sequence[Prefix], split: Split | None = None, learned: Prefix | None = None) -> Prefix:
    """The composition with a header that tells of the parts as they were given, not of what was cut from them."""
    from foreword.prefix.operations import composed_fields

    # Licences and training data are those of the parts: the header and trailer hold nothing of any text.
    said = composed_fields(parts, parts[0])
    recipe, parents = said.get("recipe", {}), said.get("parents", ())
    if split is not None and learned is not None:
        recipe |= {RECIPE_KEY: split.as_json(), "learned": learned.header.digest}
        parents = (*parents, learned.header.digest)
    licence, training_data = said.get("licence"), said.get("training_data")
    changed = whole.header.changed(recipe=recipe, parents=parents, licence=licence, training_data=training_data)
    # Header and trailer are nobody's business; the detectors are those of the parts.
    return replace(whole, header=changed).with_detector(joined([part.detector for part in parts]))
