import numpy as np

from foreword.gateway.cache.evidence import CENTRE, FEATURES, SPREAD, Evidence, Weights, evidence
from foreword.gateway.cache.wording import wording


def of(one: str, other: str, similarity: float = 0.9) -> dict[str, float]:
    weights = Weights()
    for text in (one, other, "What is a filler?"):
        weights.add(wording(text).stems)
    found = evidence(similarity, wording(one), wording(other), weights)
    return dict(zip(FEATURES, found.features.tolist(), strict=True))


def test_equal_texts_share_all() -> None:
    found = of("How do I bake bread?", "How do I bake bread?", 1.0)
    assert found["shared"] > 0.999 and found["shared_content"] > 0.999 and found["pairs"] == found["same_content"] == 1
    assert found["missing"] == found["added"] == found["order"] == found["length"] == 0


def test_who_does_what_to_whom_shows() -> None:
    assert of("Do dogs bite men?", "Do men bite dogs?")["order"] > 0
    assert of("Do dogs bite men?", "Do dogs often bite men?")["order"] == 0


def test_what_is_missing_and_added() -> None:
    found = of("How do I bake rye bread?", "How do I bake bread?")
    assert found["added"] > 0 and found["missing"] == 0
    assert of("How do I bake bread?", "How do I bake rye bread?")["missing"] == found["added"]


def test_rare_words_weigh_more_and_are_forgotten() -> None:
    weights = Weights()
    for _ in range(9):
        weights.add(("how", "bread"))
    weights.add(("how", "sourdough"))
    assert weights.of("sourdough") > weights.of("bread") > weights.of("how") > 0
    before = weights.of("bread")
    weights.add(("how", "bread"))
    weights.remove(("how", "bread"))
    assert weights.of("bread") == before
    weights.remove(("how", "sourdough"))
    assert weights.of("sourdough") == weights.of("never seen")


def test_a_vector_that_fits_its_names() -> None:
    assert len(FEATURES) == len(CENTRE) == len(SPREAD) == len(set(FEATURES))
    assert (SPREAD > 0).all()
    found = evidence(1.0, wording(""), wording(""), Weights())
    assert isinstance(found, Evidence) and np.isfinite(found.features).all()
