"""Whose business a query is: scores, thresholds, and the detector in a prefix's file."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import ConfigError, PrefixError, PrefixFileError
from foreword.prefix import relevance
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import read_header
from foreword.prefix.operations import compose, dequantize, diff, quantize, shift, verify
from foreword.prefix.relevance import Detector, Part, Query
from word_vectors import WordVectors

EMBEDDER = WordVectors()
MILL = "The mill grinds coffee beans. Its burrs are made of steel and must be cleaned weekly. The motor has a guarantee of two years."
TAX = "Income tax is due in April. Deductions for travel and rent are listed in the annex. Late filing costs a penalty."
ABOUT_MILL = [
    f"{lead} {rest}?" for lead in ("How do I clean", "When should I replace", "What are") for rest in ("the burrs", "steel burrs")
]
ABOUT_TAX = [f"{lead} {rest}?" for lead in ("When is", "How high is", "Who pays") for rest in ("income tax", "the late filing penalty")]


def query(text: str) -> Query:
    return Query.of(text, EMBEDDER.embed([text])[0])


def part_of(text: str, queries: list[str], *, level: float = 0.2) -> Part:
    return Part.calibrated(
        passage_ND=EMBEDDER.embed(text.split(". ")),
        center_D=EMBEDDER.embed(["hello", "what is the time", "who are you"]).mean(axis=0),
        known=relevance.words(text),
        queries=[query(text) for text in queries],
        level=level,
        asked_by="user",
    )


@pytest.fixture(scope="module")
def mill() -> Detector:
    return Detector(embedder=EMBEDDER.name, parts=(part_of(MILL, ABOUT_MILL),))


@pytest.fixture(scope="module")
def tax() -> Detector:
    return Detector(embedder=EMBEDDER.name, parts=(part_of(TAX, ABOUT_TAX),))


@pytest.fixture
def path(make_prefix: Any, mill: Detector, tmp_path: Path) -> Path:
    target = tmp_path / "p.safetensors"
    make_prefix().with_detector(mill).save(target)
    return target


# --- scores ---------------------------------------------------------------------------------------------------------


def test_its_own_business_and_another_s(mill: Detector, tax: Detector):
    assert mill.wants(query("How often are the burrs cleaned?")) and not mill.wants(query("When is income tax due in April?"))
    assert tax.wants(query("When is income tax due in April?")) and not tax.wants(query("How often are the burrs cleaned?"))
    assert not any(detector.wants(query("Tell me a joke about ducks")) for detector in (mill, tax))


@pytest.mark.parametrize("text", ["", " \n", "?!", "🙂"])
def test_a_query_without_words_is_nobody_s(mill: Detector, text: str):
    assert not mill.wants(query(text))


def test_a_query_of_another_embedder_is_refused(mill: Detector):
    other = WordVectors(dimensions=32)
    with pytest.raises(PrefixError, match="made with the embedder `words/48`, whose vectors have 48 numbers"):
        mill.score(Query.of("burrs", other.embed(["burrs"])[0]))


def test_words_shared_and_queries_known_raise_the_score(mill: Detector):
    vector_D = EMBEDDER.embed(["burrs"])[0]
    assert mill.score(Query.of("burrs", vector_D)) - mill.score(Query.of("taxes", vector_D)) == pytest.approx(relevance.OVERLAP)
    known = replace(mill.parts[0], query_MD=np.concatenate([mill.parts[0].query_MD] + [query("motor oil").vector_D[None]] * 5))
    assert known.score(query("motor oil")) > mill.parts[0].score(query("motor oil")) + 1


def test_long_words_count_more_than_short_ones():
    found = query("the guarantee")
    weights = dict(zip(sorted(relevance.words("the guarantee")), found.weight_W, strict=True))
    assert weights["guarantee"] == pytest.approx(64 / 73) and weights["the"] == pytest.approx(9 / 73)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cleaning burrs, cleaned BURR!", {"clean", "burr"}),
        ("don't the mill's", {"don't", "the", "mill"}),
        ("is it us", {"is", "it", "us"}),
        ("保証期間", {"保証", "証期", "期間"}),
        ("snake_case x1", {"snake", "case", "x1"}),
        ("Größe", {"grösse"}),
    ],
)
def test_words(text: str, expected: set[str]):
    assert relevance.words(text) == expected


def test_a_long_query_is_looked_at_by_both_its_ends():
    long = "start " + "x " * 100_000 + "end"
    assert len(relevance.excerpt(long)) < 5000
    assert {"start", "end"} <= relevance.words(relevance.excerpt(long))
    assert len(query(long).word_W) == 3


# --- thresholds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "needed"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.5, 1), (0.9, 1), (0.01, 99)])
def test_how_many_queries_a_level_needs(level: float, needed: int):
    assert relevance.least_queries(level) == needed
    assert relevance.threshold([1.0] * needed, level) == 1.0
    with pytest.raises(ConfigError, match=f"needs at least {needed} queries to calibrate by; got {needed - 1}"):
        relevance.threshold([1.0] * (needed - 1), level)


def test_too_few_queries_are_told_what_they_are_enough_for():
    with pytest.raises(ConfigError, match=r"12 are enough for a level of 0.077\."):
        relevance.threshold([1.0] * 12, 0.05)
    assert relevance.threshold([1.0] * 12, 0.077) == 1.0


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_level_is_a_share(level: float):
    with pytest.raises(ConfigError, match="more than 0, less than 1"):
        relevance.threshold([1.0] * 100, level)


@given(st.integers(1, 60), st.floats(0.02, 0.9))
def test_the_threshold_is_the_highest_that_keeps_the_promise(count: int, level: float):
    scores = [float(number) for number in range(count)]
    if count < relevance.least_queries(level):
        with pytest.raises(ConfigError):
            relevance.threshold(scores, level)
        return
    below = int(relevance.threshold(scores, level)) + 1  # of count + 1 equally likely places of a new score, those that are missed
    assert below / (count + 1) <= level + 1e-9 < (below + 1) / (count + 1) + 2e-9


def test_at_most_the_level_is_missed_on_average_though_queries_serve_twice():
    draw = np.random.default_rng(0)
    pool = [
        f"{one} {two} {three}" for one in ("clean", "mend", "buy") for two in ("burr", "motor", "joke", "april") for three in ("a", "bb")
    ]
    missed = []
    for _ in range(150):
        chosen = [pool[index] for index in draw.integers(len(pool), size=10)]
        part = part_of(MILL, chosen[:9], level=0.2)
        missed.append(part.score(query(chosen[9])) < part.threshold)
    assert np.mean(missed) <= 0.2 + 3 * (0.16 / 150) ** 0.5


def test_one_known_query_more_never_lowers_a_score():
    for count in range(1, len(ABOUT_MILL)):
        fewer, more = (part_of(MILL, ABOUT_MILL[:number], level=0.5) for number in (count, count + 1))
        assert more.score(query("mend the motor")) >= fewer.score(query("mend the motor")) - 1e-5


# --- in a file ------------------------------------------------------------------------------------------------------


def test_it_comes_back_from_a_file_as_it_was(path: Path, mill: Detector):
    loaded = Prefix.load(path).detector
    assert loaded is not None and loaded.relevance() == mill.relevance() == read_header(path).relevance
    for text in (*ABOUT_MILL, *ABOUT_TAX):
        assert loaded.score(query(text)) == mill.score(query(text))
    assert loaded.parts[0].asked_by == "user" and loaded.parts[0].level == 0.2


def test_it_is_read_without_keys_and_values(path: Path, mill: Detector):
    found = relevance.read(path)
    assert found is not None and found.score(query("clean burrs")) == mill.score(query("clean burrs"))


def test_a_file_without_one(make_prefix: Any, tmp_path: Path):
    target = tmp_path / "p.safetensors"
    make_prefix().save(target)
    assert relevance.read(target) is None and Prefix.load(target).detector is None and read_header(target).relevance is None


def test_a_header_from_before_there_were_detectors_is_read(make_prefix: Any, tmp_path: Path):
    import hashlib

    target = tmp_path / "p.safetensors"
    make_prefix().save(target)
    raw = target.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    preamble = json.loads(raw[8 : 8 + length])
    header = json.loads(preamble["__metadata__"]["foreword"])
    del header["relevance"]
    text = json.dumps(header)
    preamble["__metadata__"] = {"foreword": text, "foreword_sha256": hashlib.sha256(text.encode()).hexdigest()}
    new = json.dumps(preamble).encode()
    target.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])
    assert Prefix.load(target).header == make_prefix().header.changed(created=read_header(target).created)


def test_equal_prefixes_give_equal_bytes(path: Path, tmp_path: Path):
    Prefix.load(path).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_digest_is_of_keys_and_values_alone(make_prefix: Any, mill: Detector, tax: Detector):
    prefix = make_prefix()
    assert prefix.with_detector(mill).header.digest == prefix.with_detector(tax).header.digest == prefix.header.digest
    assert diff(prefix, prefix.with_detector(mill)).fields.keys() == {"relevance"}
    assert prefix.with_detector(mill).with_detector(None).header == prefix.header


def test_any_altered_byte_of_it_is_found(path: Path):
    sound = path.read_bytes()
    (length,) = struct.unpack("<Q", sound[:8])
    entries = json.loads(sound[8 : 8 + length])
    for name in ("relevance_center_PD", "relevance_passage_ND", "relevance_query_MD", "relevance_word_W"):
        start = 8 + length + entries[name]["data_offsets"][0]
        path.write_bytes(sound[:start] + bytes([sound[start] ^ 1]) + sound[start + 1 :])
        for way in (relevance.read, Prefix.load, verify):
            with pytest.raises(PrefixFileError, match="do not match the detector's digest"):
                way(path)


def test_tensors_that_are_missing_or_not_promised(path: Path, make_prefix: Any, tmp_path: Path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    bare = tmp_path / "bare.safetensors"
    make_prefix().save(bare)
    (bare_length,) = struct.unpack("<Q", bare.read_bytes()[:8])
    mixed = json.loads(raw[8 : 8 + length])
    mixed["__metadata__"] = json.loads(bare.read_bytes()[8 : 8 + bare_length])["__metadata__"]
    text = json.dumps(mixed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(PrefixFileError, match="must hold the tensors key_LHND, value_LHND; it holds key_LHND, relevance_center_PD"):
        read_header(path)


def test_numbers_that_are_not_finite(mill: Detector):
    arrays = mill.arrays()
    arrays["relevance_passage_ND"][0, 0] = np.nan
    with pytest.raises(PrefixError, match="do not match"):
        Detector.from_arrays(mill.relevance(), arrays)
    told = mill.relevance().model_copy(update={"digest": relevance._digest(arrays)})
    with pytest.raises(PrefixError, match="NaN or infinite"):
        Detector.from_arrays(told, arrays)


def test_a_threshold_that_is_not_finite_cannot_be_written(mill: Detector, make_prefix: Any):
    with pytest.raises(PrefixError, match="threshold"):
        make_prefix().with_detector(Detector(embedder="words/48", parts=(replace(mill.parts[0], threshold=float("nan")),)))


# --- operations -----------------------------------------------------------------------------------------------------


def test_what_is_made_of_a_prefix_keeps_its_detector(make_prefix: Any, mill: Detector):
    prefix = make_prefix().with_detector(mill)
    for made in (shift(prefix, 7), quantize(prefix), dequantize(quantize(prefix)), prefix.rename("other")):
        assert made.detector is mill and made.header.relevance == mill.relevance()


def test_a_composition_s_business_is_any_part_s(make_prefix: Any, mill: Detector, tax: Detector, tmp_path: Path):
    made = compose([make_prefix().with_detector(mill), make_prefix(name="tax", seed=1).with_detector(tax)], "mill+tax")
    made.save(tmp_path / "p.safetensors")
    both = relevance.read(tmp_path / "p.safetensors")
    assert both is not None and len(both.parts) == 2
    for text in (*ABOUT_MILL, *ABOUT_TAX, "Tell me a joke about ducks"):
        assert both.wants(query(text)) == (mill.wants(query(text)) or tax.wants(query(text)))


def test_a_composition_with_a_part_that_takes_everything_takes_everything(make_prefix: Any, mill: Detector):
    assert compose([make_prefix().with_detector(mill), make_prefix(name="persona", seed=1)], "a+b").detector is None


def test_detectors_of_different_embedders_are_not_joined(mill: Detector):
    assert relevance.joined([mill, Detector(embedder="other/48", parts=mill.parts)]) is None
    assert relevance.joined([]) is None and relevance.joined([None]) is None


def test_vllm_s_reader_takes_a_file_with_a_detector(path: Path, mill: Detector):
    from foreword.vllm_plugin.files import read_sound

    prefix = read_sound(str(path), digest=read_header(path).digest)
    assert prefix.detector is not None and prefix.header.relevance == mill.relevance()
