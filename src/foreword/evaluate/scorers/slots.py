"""Slots: the share of a meaning representation's values that the answer says, e.g. `name[Aromi], food[Chinese], near[Ranch]`.

The representation is read from the example's own prompt. A value counts as said when it stands in the answer as whole words;
case, punctuation, hyphens and center/centre do not matter. Three kinds of slot are said in other words as a rule, and have
lexical rules here, made for the E2E restaurant data (Novikova et al. 2017):

- yes/no slots: `yes` wants the slot's words without a negation nearby in the clause, `no` wants them with one. For
  `familyFriendly` the words are family, child or kid, and `adult` alone also says no.
- graded slots (`priceRange`, `customer rating`): the grade must stand near a word of price or of rating, so that a high price
  does not pass for a high rating. Usual synonyms are known (cheap, expensive, one star), and as the data's writers use them so,
  low, average and high ratings pass for 1, 3 and 5 out of 5, and the three price grades for the three ranges in pounds.
- `area`: "by the river" says riverside; "downtown" and "centre of town" say city centre.

This is a check of words, not of meaning: it does not see values that were made up, and it misses rarer paraphrases. Of the values
in the corrected E2E development set (Dušek et al. 2019), whose references say what the representation says, it finds 99 %.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score

_SLOT = re.compile(r"(\w[\w ]*?) *\[([^\]]*)\]")
_YES, _NO = frozenset({"yes", "true"}), frozenset({"no", "false"})
_NEGATION = r"not|no|non|never|without|cannot|(?:is|are|was|were|do|does|did|has|have|wo|ca|would|should)nt|unsuitable|unfriendly"
_PRICE = r"pric\w*|cost\w*|range|fees?|expens\w*"
_RATING = r"rat\w+|reviews?|reviewed|customers?|recommend\w*|stars?"
_MENTIONS = {"family friendly": r"famil(?:y|ies)|child(?:ren)?s?|kids?"}
_SAYS_NO = {"family friendly": r"adults?"}


def _near(first: str, second: str, gap: int = 4) -> str:
    """A pattern for both within `gap` words of each other, in either order and in one clause."""
    between = rf"(?: [^ ,]+){{0,{gap}}} "
    return rf"(?:{first}){between}(?:{second})|(?:{second}){between}(?:{first})"


def _any(*patterns: str) -> str:
    return "|".join(patterns)


def _stars(number: str) -> str:
    """N of five, as reviews put it; `number` is a pattern."""
    return _any(
        rf"(?:{number}) (?:out )?of (?:5|five)", rf"(?:{number}) 5", rf"(?:{number}) stars?", rf"rat\w+(?: of| is| at| as| a)* (?:{number})"
    )


_CHEAP = _any(r"cheap\w*", "inexpensive", r"affordabl\w*", _near("low|lower", _PRICE))
_MODERATE = _any(r"moderate\w*", "mid priced", r"mid range\w*", _near(r"average|medium|reasonabl\w*|mid", _PRICE))
_EXPENSIVE = _any("expensive", "pricey", _near(r"high\w*|upper", _PRICE))
_LOW = _any(_stars("1|one"), _near(r"low\w*|poor\w*|bad\w*", _RATING))
_AVERAGE = _any(_stars("3|three"), _near(r"average\w*|mediocre|moderate\w*|mid", _RATING))
_HIGH = _any(_stars("5|five"), _near(r"high\w*|good|great|excellent|well|top", _RATING))
_SAID_AS: Mapping[tuple[str, str], str] = {
    ("price range", "cheap"): _CHEAP,
    ("price range", "moderate"): _MODERATE,
    ("price range", "high"): _EXPENSIVE,
    ("price range", "less than £20"): _any("(?:less than|under|below) £?20", _CHEAP),
    ("price range", "£20 25"): _any("£?20 (?:to |and )?£?25", _MODERATE),
    ("price range", "more than £30"): _any("(?:more than|over|above) £?30", _EXPENSIVE),
    ("customer rating", "low"): _LOW,
    ("customer rating", "1 out of 5"): _LOW,
    ("customer rating", "2 out of 5"): _stars("2|two"),
    ("customer rating", "average"): _AVERAGE,
    ("customer rating", "3 out of 5"): _AVERAGE,
    ("customer rating", "4 out of 5"): _stars("4|four"),
    ("customer rating", "high"): _HIGH,
    ("customer rating", "5 out of 5"): _HIGH,
    ("area", "riverside"): _any("riverside", "river side", "river"),
    ("area", "city centre"): _any("city centre", "centre of(?: the)? (?:city|town)", "town centre", "downtown"),
}


def score(outcome: Outcome) -> Score:
    """0..1, the mean over rows of each row's share of values said. 1.0 for a row means that nothing is missing.

    Raises:
        EvaluationError: a prompt holds no `slot[value]`.
    """
    return mean_score(np.array([_share(row, prompt, outcome.answers[row]) for row, prompt in enumerate(outcome.prompts)]))


def parse(representation: str) -> list[tuple[str, str]]:
    """The (slot, value) pairs of `name[X], food[Y]`, in order, without those whose value is empty."""
    return [(slot.strip(), value.strip()) for slot, value in _SLOT.findall(representation) if value.strip()]


def said(slot: str, value: str, answer: str) -> bool:
    """Whether the answer says that `slot` is `value`, by the rules at the head of this file."""
    text = _clauses(answer)
    name, wanted = _clauses(_split_camel(slot)), _clauses(value).replace(" ,", "")
    if wanted in _YES | _NO:
        return _says_flag(name, text, wanted in _YES)
    literal = _found(re.escape(wanted), text.replace(" ,", ""))
    pattern = _SAID_AS.get((name, wanted))
    if pattern is None:
        return literal
    # A bare grade ("high") says nothing without its noun, so only the rule decides; a longer value may also stand literally.
    return _found(pattern, text) or (" " in wanted and literal)


def _share(row: int, prompt: str, answer: str) -> float:
    slots = parse(prompt)
    if not slots:
        raise EvaluationError(
            f"The scorer `slots` needs prompts with a meaning representation such as `name[Aromi], food[Chinese]`; "
            f"example {row} is {prompt[:80]!r}. Use another scorer for this task."
        )
    return sum(said(slot, value, answer) for slot, value in slots) / len(slots)


def _says_flag(name: str, text: str, wanted: bool) -> bool:
    mention = _MENTIONS.get(name, re.escape(name))
    denied = _found(_near(_NEGATION, mention, gap=3), text)
    mentioned = _found(mention, text)
    opposite = name in _SAYS_NO and _found(_SAYS_NO[name], text)
    if wanted:
        return mentioned and not denied and not opposite
    return (mentioned and denied) or opposite


def _found(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S)(?:{pattern})(?!\S)")


def _split_camel(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _clauses(text: str) -> str:
    """Lower-cased words with single spaces; a comma as a word of its own stands for every mark that ends a clause."""
    plain = re.sub(r"['\u2019]s\b|['\u2019]", "", text.casefold()).replace("center", "centre").replace("_", " ")
    marked = re.sub(r"[.,;:!?](?!\d)", " , ", plain)
    return " ".join(re.sub(r"[^\w£$€, ]", " ", marked).split())
