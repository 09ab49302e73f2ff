"""A text in fewer tokens: words that a small model could have guessed are left out, those that surprise it stay.

After LLMLingua (Jiang et al. 2023, "LLMLingua: Compressing Prompts for Accelerated Inference of Large Language Models", §3.2: the text is
gone through in segments, each judged behind what was kept of those before it). Here whole words go, not tokens, judged by their mean
surprise per token: a hosted model's own tokenizer would cut half words in its own way. Never left out: what is Jinja, numbers, names,
negations, and words that the caller names.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from foreword.engine import Row, Scores
from foreword.errors import ConfigError
from foreword.prompting import sentences
from foreword.prompting.template import Shot, Template, build

SEGMENT = 100
"""Words that are judged behind the same kept text."""
_WORD = re.compile(r"\s*\S+")
_KEPT = frozenset(
    {"no", "not", "never", "none", "nothing", "nor", "neither", "without", "except", "unless", "only", "must", "cannot", "or"}
)
_BEGINNING = "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A prompt in fewer tokens. `tokens` counts messages and examples, by the small model, before and after."""

    template: Template
    tokens: tuple[int, int]


@dataclass(slots=True, kw_only=True)
class _Word:
    """A word with the blanks before it. `fixed` ones stay."""

    text: str
    ids: tuple[int, ...]
    fixed: bool
    stays: bool = True


def compress(engine: Scores, template: Template, *, rate: float, examples: bool = False, keep: Collection[str] = ()) -> Compressed:
    """The prompt with about `rate` of its tokens.

    Args:
        rate: the share of each message's tokens that is kept, above 0 and up to 1; what may not go is kept all the same.
        examples: also shorten what the examples' users say; the answers always stay.
        keep: further words that stay, in whatever case.

    Raises:
        ConfigError: the rate is out of range.
    """
    if not 0 < rate <= 1:
        raise ConfigError(f"The rate is the share of tokens to keep, above 0 and at most 1; got {rate}.")
    turns = [turn.model_copy(update={"content": drop_words(engine, turn.content, rate=rate, keep=keep)}) for turn in template.messages]
    shots = list(template.examples)
    if examples:
        shots = [Shot(user=drop_words(engine, shot.user, rate=rate, keep=keep, jinja=False), assistant=shot.assistant) for shot in shots]
    fields = template.model_dump() | {
        "messages": [turn.model_dump() for turn in turns],
        "examples": [shot.model_dump() for shot in shots],
        "evidence": None,
    }
    made = build(fields, source="the compressed prompt")
    return Compressed(template=made, tokens=(_tokens(engine, template), _tokens(engine, made)))


def drop_words(engine: Scores, text: str, *, rate: float, keep: Collection[str] = (), jinja: bool = True) -> str:
    """The text with about `rate` of its tokens. Args: jinja: whether the text is a template."""
    kept_words = _KEPT | {word.casefold() for word in keep}
    begin, end = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    words = _words(engine, sentences.literal_parts(text) if jinja else [(False, text)], kept_words)
    context = list(engine.encode(_BEGINNING))
    for start in range(0, len(words), SEGMENT):
        segment = words[start : start + SEGMENT]
        _decide(engine, segment, context, rate)
        context += [token for word in segment if word.stays for token in word.ids]
    return f"{begin}{_joined(words)}{end}" if words else text


def _decide(engine: Scores, segment: Sequence[_Word], context: Sequence[int], rate: float) -> None:
    """Which of a segment's words stay: those that may not go, and of the others the most surprising while there is room."""
    ids = tuple(token for word in segment for token in word.ids)
    room = engine.window - len(ids) - 1
    row = Row(prompt=tuple(context[-max(1, min(len(context), room)) :]), targets=(ids,))
    log_probs = engine.log_probs([row])[0][0]
    left = rate * len(ids) - sum(len(word.ids) for word in segment if word.fixed)
    place, surprises = 0, []
    for word in segment:
        surprises.append(-statistics.fmean(log_probs[place : place + len(word.ids)]))
        place += len(word.ids)
    for index in sorted(range(len(segment)), key=lambda index: -surprises[index]):
        word = segment[index]
        if word.fixed:
            continue
        # A word stays when most of it fits, so that the rate is met on average.
        word.stays = left >= len(word.ids) / 2
        left -= len(word.ids) if word.stays else 0


def _words(engine: Scores, parts: Sequence[tuple[bool, str]], kept: Collection[str]) -> list[_Word]:
    """The text's words and what is Jinja in it, each with the blanks before it."""
    words, blanks, begins = [], "", True
    for is_jinja, part in parts:
        for found in [part] if is_jinja else _WORD.findall(part):
            text = blanks + found
            bare = text.lstrip()
            begins = begins or "\n" in text[: len(text) - len(bare)]
            words.append(_Word(text=text, ids=engine.encode(text), fixed=is_jinja or _is_fixed(bare, begins=begins, kept=kept)))
            blanks, begins = "", not is_jinja and bare[-1] in ".!?:"
        blanks = blanks + part if not part.strip() else "" if is_jinja else part[len(part.rstrip()) :]
    return words


def _is_fixed(word: str, *, begins: bool, kept: Collection[str]) -> bool:
    """Numbers, names (capitals that no sentence's beginning explains), negations, and what has no letter that could be missed."""
    letters = "".join(character for character in word if character.isalnum())
    if any(character.isdigit() for character in word) or word.casefold().strip(".,;:!?\"'()") in kept or "n't" in word.casefold():
        return True
    return letters[:1].isupper() and (not begins or (len(letters) > 1 and letters.isupper()))


def _joined(words: Sequence[_Word]) -> str:
    """What stays. Where words went, the widest of the blanks around them stay: a line that ended still ends."""
    text, blanks = "", ""
    for word in words:
        bare = word.text.lstrip()
        before = word.text[: len(word.text) - len(bare)]
        blanks = max(blanks, before, key=lambda some: (some.count("\n"), len(some)))
        if word.stays:
            text += (blanks if text else "") + bare
            blanks = ""
    return text


def _tokens(engine: Scores, template: Template) -> int:
    texts = [turn.content for turn in template.messages]
    return sum(len(engine.encode(text)) for text in [*texts, *(text for shot in template.examples for text in (shot.user, shot.assistant))])
