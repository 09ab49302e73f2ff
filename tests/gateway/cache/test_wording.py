import pytest

from foreword.gateway.cache.wording import differences, wording


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("Can I take ibuprofen with food?", "Can I not take ibuprofen with food?", ("negation",)),
        ("Can I eat it?", "Can't I eat it?", ("negation",)),
        ("Can I eat it?", "cant I eat it?", ("negation",)),
        ("Why should one vote?", "Why should one never vote?", ("negation",)),
        ("Kann ich das essen?", "Kann ich das nicht essen?", ("negation",)),
        ("How do I set the limit to 10?", "How do I set the limit to 100?", ("numbers",)),
        ("Two of 3", "2 of three", ()),
        ("What does 1,000 cost?", "What does 1000 cost?", ()),
        ("What is the weather in Paris?", "What is the weather in Rome?", ("names",)),
        ("What is the weather in Paris?", "what is the weather in paris?", ()),
        ("How do I update iOS?", "How do I update Windows?", ("names",)),
        ("How do I reset my password?", "How can I reset my password?", ()),
    ],
)
def test_differences_that_turn_a_meaning_round(one: str, other: str, found: tuple[str, ...]) -> None:
    assert differences(wording(one), wording(other)) == found
    assert differences(wording(other), wording(one)) == found


def test_a_double_negation_is_none() -> None:
    assert differences(wording("It is not so that I cannot go"), wording("It is so that I go")) == ()


def test_the_words_of_a_text() -> None:
    found = wording("What's the capital of Canada in 2024?")
    assert found.content == ("capital", "canada", "2024")
    assert found.numbers == ("2024",)
    assert found.names == {"canada"}
    assert found.question == found.first == "what"
    assert found.negations == 0


@pytest.mark.parametrize("text", ["", "   ", "?!", "日本語の質問", "\ud800 half"])
def test_takes_any_text(text: str) -> None:
    assert differences(wording(text), wording(text)) == ()
