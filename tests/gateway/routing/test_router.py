from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from foreword.errors import ConfigError
from foreword.gateway.routing.fitting import fit
from foreword.gateway.routing.router import Router
from routed_questions import question, table
from word_vectors import WordVectors

EMBEDDER = WordVectors()


@pytest.fixture(scope="module")
def router() -> Router:
    return fit(table(), EMBEDDER).router


def chosen(router: Router, text: str, among: tuple[int, ...] = (0, 1)) -> str:
    return router.choose(text, EMBEDDER.embed([text])[0], among).tier


def test_it_begins_where_a_success_can_be_expected(router: Router):
    assert {chosen(router, question("easy", number)) for number in range(500_000, 500_020)} == {"small"}
    assert {chosen(router, question("hard", number)) for number in range(500_000, 500_020)} == {"strong"}


def test_the_probability_is_that_of_the_chosen_tier(router: Router):
    text = question("hard", 600_000)
    vector_D = EMBEDDER.embed([text])[0]
    choice = router.choose(text, vector_D, (0, 1))
    assert choice.probability == pytest.approx(router.probabilities(text, vector_D)[choice.place])
    assert 0.7 < choice.probability < 1


def test_frugality_decides(router: Router):
    easy, hard = question("easy", 700_000), question("hard", 700_000)
    assert chosen(router.frugal(100.0), hard) == "small"
    assert chosen(router.frugal(0.0), hard) == "strong"
    assert chosen(router.frugal(100.0), easy) == "small"


def test_only_the_tiers_asked_for_are_taken(router: Router):
    assert chosen(router, question("easy", 1), among=(1,)) == "strong"
    assert chosen(router, question("hard", 1), among=(0,)) == "small"


def test_equally_good_tiers_go_to_the_cheapest(router: Router):
    free = router.frugal(0.0)
    same = Router(
        header=free.header,
        weights_KD=np.zeros_like(free.weights_KD),
        weights_KM=np.zeros_like(free.weights_KM),
        bias_K=np.zeros_like(free.bias_K),
        mean_M=free.mean_M,
        spread_M=free.spread_M,
        cost_K3=free.cost_K3,
    )
    assert chosen(same, "Anything?") == "small"


def test_written_and_read_it_chooses_the_same(router: Router, tmp_path: Path):
    path = tmp_path / "router.safetensors"
    router.write(path)
    again = Router.read(path, EMBEDDER)
    assert again.header == router.header
    for number in range(800_000, 800_010):
        text = question("hard", number)
        vector_D = EMBEDDER.embed([text])[0]
        assert again.choose(text, vector_D, (0, 1)) == router.choose(text, vector_D, (0, 1))
    assert [file.name for file in tmp_path.iterdir()] == ["router.safetensors"]


def test_nothing_half_written_stays(router: Router, tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be written"):
        router.write(tmp_path / "no such folder" / "router.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_another_embedder_is_refused(router: Router, tmp_path: Path):
    router.write(tmp_path / "r.safetensors")
    with pytest.raises(ConfigError, match="takes vectors of the embedder `words/48`, and this one is `other`"):
        Router.read(tmp_path / "r.safetensors", WordVectors("other"))
    with pytest.raises(ConfigError, match="`weights_KD` must be"):
        Router.read(tmp_path / "r.safetensors", WordVectors(dimensions=16))


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot be read.*foreword route fit"):
        Router.read(tmp_path / "none.safetensors", EMBEDDER)


@pytest.mark.parametrize(
    "content", [b"", b"no router", b"\xff" * 64, save({"bias_K": np.zeros(2)}), save({"x": np.zeros(2)}, {"foreword-router": "{}"})]
)
def test_a_file_that_is_no_router(tmp_path: Path, content: bytes):
    path = tmp_path / "r.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no router"):
        Router.read(path, EMBEDDER)


def altered(router: Router, folder: Path, header: dict | None = None, **tensors: np.ndarray) -> Path:
    """The router's file with some of it replaced."""
    path = folder / "altered.safetensors"
    router.write(path)
    found = {**load(path.read_bytes()), **tensors}
    fields = json.loads(router.header.model_dump_json()) | (header or {})
    path.write_bytes(save(found, {"foreword-router": json.dumps(fields)}))
    return path


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"frugality": -1}, "frugality"),
        ({"tiers": ["small", "small"]}, "twice"),
        ({"reference": "nobody"}, "none of"),
        ({"markers": 2}, "markers"),
        ({"surprise": 1}, "surprise"),
        ({"tiers": ["small", "strong", "third"]}, "of shape"),
    ],
)
def test_a_header_that_cannot_be(router: Router, tmp_path: Path, header: dict, told: str):
    with pytest.raises(ConfigError, match=told):
        Router.read(altered(router, tmp_path, header), EMBEDDER)


def test_numbers_that_cannot_be(router: Router, tmp_path: Path):
    with pytest.raises(ConfigError, match="finite"):
        Router.read(altered(router, tmp_path, bias_K=np.array([0.0, np.nan])), EMBEDDER)
    with pytest.raises(ConfigError, match="above 0"):
        Router.read(altered(router, tmp_path, spread_M=np.zeros_like(router.spread_M)), EMBEDDER)


def test_a_question_that_says_nothing_is_routed_too(router: Router):
    assert chosen(router, "") in router.tiers
