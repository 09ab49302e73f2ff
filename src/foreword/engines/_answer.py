"""Text that grows token by token: what is settled is given out, what later tokens may still change or take back is held.

A token on its own may be half a character, and a decoder may treat the first token of a text in its own way (it takes a leading blank
off). So tokens are decoded in a window that keeps some tokens of context before the ones that are new, as vLLM's and TGI's incremental
detokenisation does; the window is short, so the work grows linearly with the answer.

What is held back at the end of the text: replacement characters, which may be characters whose other bytes are still to come, and
whatever may be the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

CONTEXT, LONGEST_WINDOW = 6, 12
"""Tokens that stay in the window when it moves on, and how many it holds before it does."""
UTF8_BYTES = 4
"""A character has at most so many; after as many tokens that left the text broken, it is no longer one that waits for its rest."""
BROKEN = "\ufffd"


class Answer:
    """One answer in the making.

    The pieces that `add` and `finish` return, joined, are the text of all tokens decoded at once, cut before the first stop string (that
    whose last character comes first; of several that end there the longest). One exception: a sentencepiece vocabulary with byte tokens
    reads a run of them as broken altogether when its end is; characters given out before that stay.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = ()) -> None:
        """
        Args:
            decode: the text of a token sequence; ids that have no text (special ones) add nothing.
            stop: texts at whose first appearance the answer ends; none is empty.
        """
        self._decode = decode
        self._stops = [_StopString(text) for text in stop]
        self._window: list[int] = []
        self._text = ""
        self._given = 0
        """Characters of the window's text that the stop strings have seen."""
        self._move_at = LONGEST_WINDOW
        self._broken = 0
        self._held = ""
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether a stop string has appeared; nothing is given out any more."""
        return self._ended

    def add(self, token_id: int) -> str:
        """Takes the next token; the text that it settles, often none."""
        if self._ended:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        # Twice, because a decoder may hide one blank at the start of a text, but not two.
        if text == self._text and not self._decode([token_id, token_id]):
            self._window.pop()
            return ""
        self._text = text
        self._broken = self._broken + 1 if text.endswith(BROKEN) else 0
        settled = len(text.rstrip(BROKEN))
        if self._broken >= UTF8_BYTES:
            settled = max(settled, len(text) - 1)
        piece = self._through_stops(text[self._given : settled])
        self._given = max(self._given, settled)
        # While a character waits for its rest, a byte-fallback decoder reads those before it as broken too: nothing to compare.
        if len(self._window) >= self._move_at and not 0 < self._broken < UTF8_BYTES:
            self._move()
        return piece

    def finish(self) -> str:
        """The text that was held back; call it once, after the last token."""
        if self._ended:
            return ""
        piece = self._through_stops(self._text[self._given :])
        self._given = len(self._text)
        if self._ended:
            return piece
        piece, self._held = piece + self._held, ""
        return piece

    def _move(self) -> None:
        """Leaves tokens behind that no longer matter; keeps the window where the rest would not read the same without them."""
        ungiven = len(self._text) - self._given
        for context in range(CONTEXT, CONTEXT + UTF8_BYTES):
            window = self._window[-context:]
            text = self._decode(window)
            # A window that begins inside a character begins with broken pieces of it, one per byte.
            for skipped in range(UTF8_BYTES):
                same = text[skipped:]
                if len(same) > ungiven and self._text.endswith(same):
                    self._window, self._text = window, text
                    self._given, self._move_at = len(text) - ungiven, LONGEST_WINDOW
                    return
                if text[skipped : skipped + 1] != BROKEN:
                    break
        self._move_at = 2 * len(self._window)

    def _through_stops(self, text: str) -> str:
        """What of held and new text is safe to give out."""
        if not self._stops:
            return text
        waiting = self._held + text
        for place, character in enumerate(text, start=len(self._held) + 1):
            # All of them see the character, so no `any` that stops early.
            length = max(len(stop.text) if stop.feed(character) else 0 for stop in self._stops)
            if length:
                self._ended, self._held = True, ""
                return waiting[: place - length]
        held = max(stop.matched for stop in self._stops)
        self._held = waiting[len(waiting) - held :]
        return waiting[: len(waiting) - held]


class _StopString:
    """Finds one text in a stream, character by character (Knuth, Morris & Pratt 1977)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        """How many characters at the end of the stream are the text's beginning."""
        self._shorter = [0] * len(text)
        """For each place, the length of the longest beginning of the text that ends there, the whole apart."""
        length = 0
        for place in range(1, len(text)):
            while length and text[place] != text[length]:
                length = self._shorter[length - 1]
            length += text[place] == text[length]
            self._shorter[place] = length

    def feed(self, character: str) -> bool:
        """Whether the text ends with this character."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched - 1]
        self.matched += self.text[self.matched] == character
        return self.matched == len(self.text)
