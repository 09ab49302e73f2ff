"""Several prefixes as one, behind a header and before a trailer. Axes: L layer, H KV head, N virtual position, D head dimension."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling.compilers.text import compile_source
from foreword.compiling.composing import RECIPE_KEY, Split, compose_parts, reserved_name
from foreword.compiling.settings import CompileSettings
from foreword.errors import PrefixError, PrefixMismatch, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.operations import compose, quantize
from foreword.prefix.rotary import rotate

TEXTS = ("The Eagle is a cheap coffee shop near the river.", "Aromi serves Chinese food in the city centre.", "My order has not arrived.")


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


@pytest.fixture(scope="module")
def parts(engine: Any) -> list[Prefix]:
    return [compile_source(engine, text, name=f"part-{number}") for number, text in enumerate(TEXTS)]


def framed(engine: Any, *, header: int = 4, trailer: int = 2, sharpness: Any = None, **changes: Any) -> Prefix:
    """A header and trailer of random numbers."""
    geometry = engine.geometry
    shape = (geometry.layers, geometry.kv_heads, header + trailer, geometry.head_dim)
    draw = torch.Generator().manual_seed(7)
    fields: dict[str, Any] = {
        "name": "frame",
        "kind": "learned",
        "fingerprint": engine.fingerprint,
        "geometry": geometry,
        "prompt_format": "continuation",
        "sink": header,
        "recipe": {RECIPE_KEY: Split(header=header, trailer=trailer, sharpness=sharpness).as_json()},
    }
    return Prefix.make(key_LHND=torch.randn(shape, generator=draw), value_LHND=torch.randn(shape, generator=draw), **(fields | changes))


def test_without_a_header_it_is_plain_composition(engine: Any, parts: list[Prefix]):
    mine, plain = compose_parts(engine, parts, name="all"), compose(parts, "all")
    assert torch.equal(mine.key_LHND, plain.key_LHND) and torch.equal(mine.value_LHND, plain.value_LHND)
    assert (mine.header.kind, mine.header.parents) == ("composed", plain.header.parents)
    assert mine.header.recipe == plain.header.recipe


def test_header_parts_and_trailer_stand_one_behind_the_other(engine: Any, parts: list[Prefix]):
    frame = framed(engine)
    whole = compose_parts(engine, parts, name="all", header_trailer=frame)
    lengths = [part.positions - 1 for part in parts]
    assert whole.positions == 4 + sum(lengths) + 2
    assert torch.equal(
        whole.value_LHND, torch.cat([frame.value_LHND[:, :, :4], *(p.value_LHND[:, :, 1:] for p in parts), frame.value_LHND[:, :, 4:]], 2)
    )
    assert torch.equal(whole.key_LHND[:, :, :4], frame.key_LHND[:, :, :4])
    # The second part stood at 1, 2, … and stands behind header and first part now.
    start = 4 + lengths[0]
    moved = rotate(parts[1].key_LHND[:, :, 1:], engine.geometry, start - 1)
    assert torch.allclose(whole.key_LHND[:, :, start : start + lengths[1]], moved, atol=1e-5)
    assert torch.allclose(whole.key_LHND[:, :, -2:], rotate(frame.key_LHND[:, :, 4:], engine.geometry, sum(lengths)), atol=1e-5)


def test_the_factors_apply_to_the_parts_keys_alone(engine: Any, parts: list[Prefix]):
    factors = tuple(tuple(1.0 + 0.1 * (2 * layer + head) for head in range(2)) for layer in range(2))
    plain, sharp = (compose_parts(engine, parts, name="all", header_trailer=framed(engine, sharpness=one)) for one in (None, factors))
    wanted = plain.key_LHND.clone()
    wanted[:, :, 4:-2] *= torch.tensor(factors)[:, :, None, None]
    assert torch.allclose(sharp.key_LHND, wanted, atol=1e-5)
    assert torch.equal(sharp.value_LHND, plain.value_LHND)


def test_the_header_tells_of_what_was_composed(engine: Any, parts: list[Prefix]):
    frame = framed(engine, sharpness=((1.0, 1.0), (1.0, 1.0)))
    tailed = Prefix.make(
        name="tail",
        kind="compacted",
        key_LHND=parts[0].key_LHND,
        value_LHND=parts[0].value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
        text_tail="order 4711",
        licence="MIT",
    )
    header = compose_parts(engine, [tailed, parts[1]], name="a+b", header_trailer=frame).header
    recipe: Any = header.recipe
    assert [one["name"] for one in recipe["composed"]] == ["tail", "part-1"]
    assert (recipe[RECIPE_KEY]["header"], recipe[RECIPE_KEY]["trailer"], recipe["learned"]) == (4, 2, frame.header.digest)
    assert header.parents == (tailed.header.digest, parts[1].header.digest, frame.header.digest)
    assert (header.text_tail, header.licence, header.sink, header.kind) == ("order 4711", None, 4, "composed")
    assert compose_parts(engine, [tailed, tailed], name="twice", header_trailer=frame).header.licence == "MIT"


def test_a_composition_composed_again_has_one_header_and_one_trailer(engine: Any, parts: list[Prefix]):
    """Per-user on top of per-task: the inner composition loses its own frame, and nothing is sharpened twice."""
    frame = framed(engine, sharpness=((1.1, 1.2), (1.3, 1.4)))
    inner = compose_parts(engine, parts[:2], name="task", header_trailer=frame)
    nested = compose_parts(engine, [inner, parts[2]], name="task+user", header_trailer=frame)
    flat = compose_parts(engine, parts, name="all", header_trailer=frame)
    assert torch.allclose(nested.key_LHND, flat.key_LHND, atol=1e-5) and torch.equal(nested.value_LHND, flat.value_LHND)
    assert compose_parts(engine, [inner, parts[2]], name="plain").positions == inner.positions - 2 + parts[2].positions - 1


def test_int8_parts(engine: Any, parts: list[Prefix]):
    frame = framed(engine, sharpness=((1.1, 1.2), (1.3, 1.4)))
    rounded = compose_parts(engine, [quantize(part) for part in parts], name="all", header_trailer=frame)
    exact = compose_parts(engine, parts, name="all", header_trailer=frame)
    assert rounded.header.dtype == "float32"
    assert torch.allclose(rounded.key_LHND, exact.key_LHND, atol=0.1) and not torch.equal(rounded.key_LHND, exact.key_LHND)


def test_parts_of_the_other_prompt_format(engine: Any, parts: list[Prefix]):
    one = Prefix.make(
        name="tuned",
        kind="learned",
        key_LHND=parts[0].key_LHND,
        value_LHND=parts[0].value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="full",
    )
    assert compose_parts(engine, [one, one], name="all", header_trailer=framed(engine)).header.prompt_format == "full"
    with pytest.raises(PrefixError, match="prompt format full and `part-1` continuation"):
        compose_parts(engine, [one, parts[1]], name="all", header_trailer=framed(engine))


def test_another_models_parts_or_header_are_refused(engine: Any, parts: list[Prefix], tiny_model_folder: Any):
    other = load(str(tiny_model_folder("llama", seed=5)), dtype="float32").engine
    with pytest.raises(PrefixMismatch, match=r"(?s)`part-0`.*weights"):
        compose_parts(other, parts, name="all")
    with pytest.raises(PrefixMismatch, match=r"(?s)`frame`.*weights"):
        compose_parts(engine, parts, name="all", header_trailer=framed(other))
    assert reserved_name(engine.fingerprint) != reserved_name(other.fingerprint)


@pytest.mark.parametrize(
    "said",
    [
        None,
        5,
        {"header": 4},
        {"header": 0, "trailer": 6},
        {"header": 5, "trailer": 2},
        {"header": 2, "trailer": 2},
        {"header": True, "trailer": 2},
        {"header": 4, "trailer": 2, "sharpness": [[1.0]]},
    ],
)
def test_what_is_no_header_and_trailer_is_refused(engine: Any, parts: list[Prefix], said: Any):
    recipe = {} if said is None else {RECIPE_KEY: said}
    with pytest.raises(PrefixError, match=r"no learned header and trailer|does not say how it divides"):
        compose_parts(engine, parts, name="all", header_trailer=framed(engine, recipe=recipe))


def test_no_parts_and_no_room(engine: Any, parts: list[Prefix]):
    with pytest.raises(PrefixError, match="at least one"):
        compose_parts(engine, [], name="all", header_trailer=framed(engine))
    with pytest.raises(WindowError, match="no room for a prompt"):
        compose_parts(engine, parts, name="all", header_trailer=framed(engine), window=30)
    long = compile_source(engine, "word " * 150, name="long", settings=CompileSettings())
    with pytest.raises(WindowError, match="the model's window has 512"):
        compose_parts(engine, [long, long, long], name="all")


def test_keys_that_cannot_move(tiny_model_folder: Any):
    engine = load(str(tiny_model_folder("gpt2")), dtype="float32").engine
    pair = [compile_source(engine, text, name=f"part-{number}") for number, text in enumerate(TEXTS[:2])]
    with pytest.raises(PrefixError, match="absolute position embeddings"):
        compose_parts(engine, pair, name="all")
