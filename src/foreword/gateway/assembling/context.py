"""Puts a request's context together: what of each part goes in, so that all of it keeps the budget.

The prompt, instructions, the question and tools that must be there always go in. What the budget leaves is for the passages (half of it,
where there is a history too), then for the latest turns. Where a history is to be summarised, the summary has its place before the turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from foreword.gateway.assembling import passages as ranked
from foreword.gateway.assembling.budget import json_tokens, message_tokens, text_tokens
from foreword.gateway.assembling.history import SUMMARY_TOKENS, Summaries, window
from foreword.gateway.assembling.passages import Chunk, Chunks
from foreword.gateway.assembling.tools import Tools
from foreword.gateway.assembling.turns import Conversation, Turn, instructions, preceded
from foreword.gateway.budgets import FEWER, SHORTER
from foreword.gateway.errors import Refusal
from foreword.gateway.estimate import TOKENS_PER_TURN
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import AssembleSettings
from foreword.gateway.path_wire import PathRequest
from foreword.gateway.question import question_vector
from foreword.retrieval.embedder import Embedder

ASSEMBLED, PASSAGES = "foreword-assembled", "foreword-passages"
_SUMMARY = "Notes of what was said before:"
_SUMMARY_SHARE = 8
"""A summary takes no more than this part of the budget."""


@dataclass(slots=True, kw_only=True, eq=False)
class Context:
    """A request's parts while it is put together.

    Attributes:
        first: the stored prompt's messages, which nothing is taken off.
        tools: what of the request's tools goes in; `spare` those of them, by their place, that may still go, least like the request first.
        told: what was left out.
        saved: tokens of it.
    """

    first: Turn
    talk: Conversation
    tools: list[dict[str, Any]]
    kept: set[int]
    spare: list[int] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    summary: str | None = None
    told: list[str] = field(default_factory=list)
    saved: int = 0

    def fixed_tokens(self) -> int:
        """Of what goes in whatever the budget says."""
        return (
            message_tokens(self.first)
            + message_tokens(self.talk.opening)
            + message_tokens(self.talk.question)
            + sum(json_tokens(self.tools[place]) for place in self.kept)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembling:
    """What contexts are put together with."""

    embedder: Embedder | None
    summaries: Summaries
    tools: Tools

    async def context(self, passage: Passage, plan: AssembleSettings, chunks: Chunks | None, *, prompted: int) -> PathRequest:
        """The request with its context.

        Args:
            prompted: how many of its first messages are a stored prompt's.

        Raises:
            Refusal: what must go in is more than the budget.
        """
        request = passage.request
        if _fits(request, plan, prompted):
            return request
        talk = Conversation.of(request.messages[prompted:])
        context = Context(first=tuple(request.messages[:prompted]), talk=talk, tools=list(request.tools or ()), kept=set())
        self._choose_tools(context, passage, plan)
        left = self._left(context, plan)
        left = await self._choose_passages(context, passage, plan, chunks, left)
        await self._cut_history(context, passage, plan, left)
        tell_tools(context)
        if context.told:
            passage.told[ASSEMBLED] = ", ".join(context.told)
        passage.spared_tokens += context.saved
        return _request(request, context)

    def _choose_tools(self, context: Context, passage: Passage, plan: AssembleSettings) -> None:
        if plan.tools == "all" or not context.tools or passage.request.tool_choice == "none":
            # With `none` the model may look at tools that earlier turns called, and calls no other.
            context.kept = set(range(len(context.tools)))
            return
        choice = self.tools.choose(passage, context.tools, with_used=plan.tools == "used")
        context.kept, context.spare = set(choice.kept), list(choice.spare)

    def _left(self, context: Context, plan: AssembleSettings) -> int | None:
        """Tokens that are left beside what must go in; tools that may go make room where it is needed. None is no limit."""
        if plan.tokens is None:
            return None
        left = plan.tokens - context.fixed_tokens()
        while left < 0 and context.spare:
            place = context.spare.pop(0)
            context.kept.discard(place)
            left += json_tokens(context.tools[place])
        if left < 0:
            raise Refusal(
                400,
                f"Instructions, question and tools are about {plan.tokens - left:,} tokens, and requests of this task type have "
                f"{plan.tokens:,}. Send less.",
                code="context_length_exceeded",
                param="messages",
            )
        return left

    async def _choose_passages(
        self, context: Context, passage: Passage, plan: AssembleSettings, chunks: Chunks | None, left: int | None
    ) -> int | None:
        settings = plan.passages
        if chunks is None or settings is None or self.embedder is None or not context.talk.question:
            return left
        vector_D = question_vector(passage, self.embedder)
        at_most = _halved(settings.at_most) if FEWER in passage.degraded else settings.at_most
        found = await chunks.best(vector_D, at_most=at_most, at_least=settings.at_least)
        if not found:
            return left
        room = None if left is None else (left // 2 if context.talk.history else left)
        context.chunks = _fitting(found, room)
        passage.sources = tuple((chunk.source, chunk.text) for chunk in context.chunks)
        if context.chunks:
            passage.told[PASSAGES] = ranked.header(context.chunks)
        if len(context.chunks) < len(found):
            context.told.append(f"passages {len(context.chunks)}/{len(found)}")
        return left if left is None else left - _passage_tokens(context.chunks)

    async def _cut_history(self, context: Context, passage: Passage, plan: AssembleSettings, left: int | None) -> None:
        history = context.talk.history
        turns = plan.history_turns
        if turns is not None and SHORTER in passage.degraded:
            turns = _halved(turns)
        kept = window(history, most_turns=turns, most_tokens=left)
        if kept == len(history):
            return
        model = plan.summary_model
        tokens = SUMMARY_TOKENS if plan.tokens is None else min(SUMMARY_TOKENS, plan.tokens // _SUMMARY_SHARE)
        reserved = tokens + text_tokens(_SUMMARY)
        if model is not None and left is not None:
            model = model if reserved <= left else None
            kept = window(history, most_turns=turns, most_tokens=left - reserved) if model else kept
        gone = history[: len(history) - kept]
        if model is not None:
            context.summary = await self.summaries.of(passage, model, gone, tokens=tokens)
        stays = instructions(gone)
        context.talk = Conversation(
            opening=(*context.talk.opening, *stays), history=history[len(history) - kept :], question=context.talk.question
        )
        context.told.append(f"history -{len(gone)} {'summarised' if context.summary else 'dropped'}")
        context.saved += sum(message_tokens(turn) for turn in gone) - message_tokens(stays) - text_tokens(context.summary or "")


def tell_tools(context: Context) -> None:
    """Notes which share of the tools went in."""
    if len(context.kept) < len(context.tools):
        context.told.append(f"tools {len(context.kept)}/{len(context.tools)}")
        context.saved += sum(json_tokens(tool) for place, tool in enumerate(context.tools) if place not in context.kept)


def _request(request: PathRequest, context: Context) -> PathRequest:
    talk = context.talk
    question, history = talk.question, list(talk.history)
    if context.chunks:
        question = (preceded(question[0], ranked.written(context.chunks)), *question[1:])
    if context.summary:
        notes = f"{_SUMMARY}\n{context.summary}"
        if history and history[0][0].role == "user":
            history[0] = (preceded(history[0][0], notes), *history[0][1:])
        else:
            question = (preceded(question[0], notes), *question[1:])
    whole = Conversation(opening=talk.opening, history=tuple(history), question=question)
    changes: dict[str, Any] = {"messages": (*context.first, *whole.messages())}
    if len(context.kept) < len(context.tools):
        changes["tools"] = [tool for place, tool in enumerate(context.tools) if place in context.kept]
    return msgspec.structs.replace(request, **changes)


def _fitting(chunks: Sequence[Chunk], room: int | None) -> list[Chunk]:
    """As many of the best as there is room for."""
    if room is None:
        return list(chunks)
    kept: list[Chunk] = []
    for chunk in chunks:
        if _passage_tokens([*kept, chunk]) > room:
            break
        kept.append(chunk)
    return kept


def _passage_tokens(chunks: Sequence[Chunk]) -> int:
    return text_tokens(ranked.INTRODUCTION) + sum(chunk.tokens for chunk in chunks) if chunks else 0


def _halved(count: int) -> int:
    return max(1, count // 2)


def _fits(request: PathRequest, plan: AssembleSettings, prompted: int) -> bool:
    """Whether it is plain that nothing has to be chosen or left out: few messages, of text alone, without tools and passages."""
    messages = request.messages
    if request.tools or plan.passages is not None or len(messages) - prompted > (plan.history_turns or len(messages)):
        return False
    if plan.tokens is None:
        return True
    size = 0
    for message in messages:
        if type(message.content) is not str or message.tool_calls:
            return False
        # At most four bytes of UTF-8 a character, and as many a token.
        size += len(message.content) + TOKENS_PER_TURN
    return size <= plan.tokens
