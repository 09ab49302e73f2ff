"""What an agent has before its eyes: the goal and its last steps, within a budget of tokens.

The goal always stays, and so does the last step. Older steps fall out where there is no room for them; what falls out goes into a summary
that the model writes, or is left out with a note. A summary is gone on with, and never made anew: each step is summarised once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from foreword.errors import AgentError, ServingError, WindowError
from foreword.types import Message

TOKENS_PER_WORD = 1.3
"""English prose in the usual vocabularies of 30,000 to 250,000 tokens has 1.2 to 1.4."""
CHARACTERS_PER_TOKEN = 4
TOKENS_AROUND = 4
"""What a chat template puts around a message, about."""
KEPT_SHARE = 0.75
"""Where something has to fall out, this share of the budget is left filled, so that not every step makes something fall out."""
LEAST_TOKENS = 64
_CUTS = 12

Summarise = Callable[[Sequence[Message]], Awaitable[str]]
"""Asks the model for a summary, and returns its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortTerm:
    """How much an agent has before its eyes.

    Attributes:
        most_tokens: of a whole prompt.
        summarise: have the model sum up what falls out, instead of leaving it out with a note.
        summary_tokens: of that summary, at most.
    """

    most_tokens: int = 4_000
    summarise: bool = True
    summary_tokens: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One step: what the model said, and what it was told then."""

    said: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallen:
    """What fell out at once.

    Attributes:
        turns: how many steps.
        summary: of all that ever fell out; empty where there is none.
        note: why there is no summary, where one was wanted.
    """

    turns: int
    summary: str = ""
    note: str = ""


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, where no tokenizer is at hand: by words, or by characters where words are few and long."""
    return int(max(len(text.split()) * TOKENS_PER_WORD, len(text) / CHARACTERS_PER_TOKEN)) + 1


class Counts:
    """Counts tokens, each text once. What was counted can be kept, so that the same can be counted again without the tokenizer."""

    def __init__(self, count: Callable[[str], int] = estimated_tokens, *, known: Mapping[str, int] | None = None) -> None:
        """Args: known: as `recorded` gives them."""
        self._count = count
        self._known = dict(known or {})

    def __call__(self, text: str) -> int:
        """Tokens of a text."""
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]
        if key not in self._known:
            self._known[key] = self._count(text)
        return self._known[key]

    @property
    def recorded(self) -> dict[str, int]:
        """The counts of all texts so far by their digests; empty where they are estimates, which anybody can make again."""
        return {} if self._count is estimated_tokens else dict(self._known)


class ShortMemory:
    """The prompt of an agent at work."""

    def __init__(
        self,
        *,
        system: str,
        goal: str,
        settings: ShortTerm,
        count: Callable[[str], int] = estimated_tokens,
        summarise: Summarise | None = None,
    ) -> None:
        """Args: summarise: used where the settings want it."""
        self.turns: list[Turn] = []
        self.summary = ""
        self.fallen = 0
        self._system, self._goal, self._settings, self._count = system, goal, settings, count
        self._most_tokens = settings.most_tokens
        self._summarise = summarise if settings.summarise else None

    def add(self, said: str, told: str) -> None:
        """One more step."""
        self.turns.append(Turn(said=said, told=told))

    def conversation(self, *, tail: str = "") -> tuple[Message, ...]:
        """The prompt. Args: tail: put at its end this once."""
        earlier = ""
        if self.summary:
            earlier = f"\n\nYour first {self.fallen} steps, in short:\n{self.summary}"
        elif self.fallen:
            earlier = f"\n\n[Your first {self.fallen} steps are left out here.]"
        messages = [Message(role="system", content=self._system)] if self._system else []
        messages.append(Message(role="user", content=self._goal + earlier))
        for turn in self.turns:
            messages += [Message(role="assistant", content=turn.said), Message(role="user", content=turn.told)]
        if tail:
            messages[-1] = Message(role="user", content=f"{messages[-1].content}\n\n{tail}")
        return tuple(messages)

    def tokens(self, *, tail: str = "") -> int:
        """About how many tokens the prompt has."""
        parts = [self._system, self._goal, self.summary, tail, *(text for turn in self.turns for text in (turn.said, turn.told))]
        return sum(self._count(part) + TOKENS_AROUND for part in parts if part)

    def over(self, *, tail: str = "") -> bool:
        """Whether the prompt is over its budget."""
        return self.tokens(tail=tail) > self._most_tokens

    def squeeze(self) -> bool:
        """Halves the budget, since the prompt did not fit the model's window after all; False where that is of no use any more."""
        self._most_tokens //= 2
        return self._most_tokens >= LEAST_TOKENS

    async def fit(self, *, tail: str = "") -> Fallen | None:
        """Brings the prompt within the budget; None where it is already.

        Raises:
            AgentError: goal and instructions alone are over it.
            BudgetSpent: from asking for the summary.
        """
        if not self.over(tail=tail):
            return None
        room = self._settings.summary_tokens if self._summarise else 0
        fallen = []
        while len(self.turns) > 1 and self.tokens(tail=tail) + room > self._most_tokens * KEPT_SHARE:
            fallen.append(self.turns.pop(0))
        self.fallen += len(fallen)
        note = await self._summed_up(fallen) if fallen else ""
        self._cut_last(tail)
        if self.over(tail=tail):
            raise AgentError(
                f"Goal, instructions and tools take {self.tokens(tail=tail):,} tokens; the short-term memory has {self._most_tokens:,}. "
                "Give it more tokens, or the agent fewer tools and shorter instructions."
            )
        return Fallen(turns=len(fallen), summary=self.summary, note=note)

    async def _summed_up(self, fallen: Sequence[Turn]) -> str:
        """Goes on with the summary; returns why that failed, where it did."""
        if self._summarise is None:
            return ""
        most = self._settings.summary_tokens
        try:
            text = (await self._summarise(self._request(fallen, most))).strip()
        except (WindowError, ServingError) as error:
            return f"{len(fallen)} steps were left out without a summary: {error}"
        if not text:
            return f"{len(fallen)} steps were left out without a summary: the model wrote none."
        self.summary = cut_to_tokens(text, most, self._count)
        return ""

    def _request(self, fallen: Sequence[Turn], most: int) -> tuple[Message, ...]:
        each = max(LEAST_TOKENS, (self._most_tokens - most) // (3 * len(fallen)))
        texts = [cut_to_tokens(text, each, self._count) for turn in fallen for text in (turn.said, turn.told)]
        steps = "\n\n".join(texts)
        before = f"The summary so far:\n{self.summary}\n\n" if self.summary else ""
        return (
            Message(
                role="user",
                content=f"{cut_to_tokens(self._goal, LEAST_TOKENS * 2, self._count)}\n\n{before}Steps to add to the summary:\n\n{steps}\n\n"
                f"Write one summary of all of it in at most {max(10, int(most / TOKENS_PER_WORD * 0.8))} words. Keep names, numbers and "
                "results that are needed for the goal, and what was tried in vain. Write only the summary.",
            ),
        )

    def _cut_last(self, tail: str) -> None:
        """Shortens the last step where it alone is too long: what was told first, then what was said."""
        for name in ("told", "said"):
            over = self.tokens(tail=tail) - self._most_tokens
            if over <= 0 or not self.turns:
                return
            last = self.turns[-1]
            text = getattr(last, name)
            shortened = cut_to_tokens(text, max(LEAST_TOKENS // 4, self._count(text) - over), self._count)
            other = {"told": "said", "said": "told"}[name]
            self.turns[-1] = Turn(**{name: shortened, other: getattr(last, other)})


def cut_to_tokens(text: str, most: int, count: Callable[[str], int]) -> str:
    """A text of about `most` tokens at most: its begin and its end, with a note of what is left out between them."""
    total = count(text)
    if total <= most:
        return text
    kept = len(text) * most // max(total, 1)
    for _ in range(_CUTS):
        kept = int(kept * 0.9)
        first, last = kept * 2 // 3, kept - kept * 2 // 3
        shortened = f"{text[:first]}\n[{len(text) - kept:,} characters left out]\n{text[len(text) - last :]}"
        if count(shortened) <= most:
            return shortened
    return text[: max(1, kept // 2)]
