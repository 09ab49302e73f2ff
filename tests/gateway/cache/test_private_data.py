import gzip
import json
from pathlib import Path

import pytest

from foreword.gateway.cache.private_data import Patterns, iban, luhn

DATA = Path(__file__).resolve().parents[4] / "shared/data/pii"
FOUND = {"EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IBAN", "US_SSN", "PHONE_NUMBER", "IP_ADDRESS"}


def kinds(text: str) -> frozenset[str]:
    return Patterns().kinds(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jane.doe+x@example.co.uk please", "email"),
        ("My card is 4111 1111 1111 1111.", "card"),
        ("Pay to DE89 3704 0044 0532 0130 00", "iban"),
        ("pay to gb82west12345698765432", "iban"),
        ("Call +49 30 1234567 tomorrow", "phone"),
        ("Call (555) 123-4567", "phone"),
        ("my phone number is 5551234567", "phone"),
        ("SSN 460-89-9847", "national id"),
        ("AB 12 34 56 C is my number", "national id"),
        ("mi DNI es 12345678Z", "national id"),
        ("CPF 529.982.247-25", "national id"),
        ("my driver's license number is 2270-66-1551", "national id"),
        ("connect to 192.168.13.77", "ip address"),
        ("key sk-proj-abcdefghijklmnop1234", "secret"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "secret"),
        ("AKIAIOSFODNN7EXAMPLE", "secret"),
        ("-----BEGIN RSA PRIVATE KEY-----", "secret"),
        ("my password is hunter2hunter2", "secret"),
        ("postgres://me:pass@db/prod", "secret"),
    ],
)
def test_finds(text: str, kind: str) -> None:
    assert kind in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Canada?",
        "How do I reset my password?",
        "What is a token in a language model?",
        "In 1999 there were 1,234,567 of them, at 3.14159 each.",
        "Version 2.10.3.4000 of the package",
        "My order 4111 1111 1111 1112 has not come",
        "@user on line 12",
        "Where do I find the API key page?",
        "",
    ],
)
def test_leaves_alone(text: str) -> None:
    assert kinds(text) == frozenset()


def test_check_digits() -> None:
    assert luhn("4111-1111-1111-1111") and not luhn("4111-1111-1111-1112") and not luhn("0000 0000 0000 0000")
    assert iban("DE89370400440532013000") and not iban("DE88370400440532013000") and not iban("DE89")


def test_a_long_text_of_digits_is_looked_through_in_no_time() -> None:
    assert isinstance(kinds("1 " * 50_000), frozenset)


@pytest.mark.skipif(not DATA.is_dir(), reason="the evaluation data are not beside the repository")
def test_on_labelled_texts() -> None:
    with (DATA / "dev.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    with gzip.open(DATA / "extra_large_train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows += [json.loads(line) for line in lines]
    private = [row["text"] for row in rows if FOUND & {span["type"] for span in row["spans"]}]
    plain = [row["text"] for row in rows if not row["spans"]]
    assert len(private) > 100 and len(plain) > 20
    assert sum(map(bool, map(kinds, private))) / len(private) > 0.9
    assert sum(map(bool, map(kinds, plain))) / len(plain) < 0.05
