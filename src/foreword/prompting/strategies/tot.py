"""`tot`: tree of thoughts (Yao et al. 2023): several next thoughts are made and judged, the best are gone on from, and dead ends are left.

What a thought is comes from a decomposition (`foreword.prompting.decompositions`), the search from `foreword.prompting.tree`; here the
model is asked. Against the authors' code: a value is the mean of its judgements and not their sum, so that `least` means the same however
many there are; a state of which no judgement could be read counts as `likely`, for nothing is known of it; equal states are merged. By
default each state is judged once and three are kept of a level, where the paper's Game of 24 has three judgements and five states: a search
spends most on judgements, and a default one is to end within the calls that an answer may take.

Every expansion is a span of kind `search`, with the thoughts that it made and what became of each; from those spans
`foreword.prompting.tree_picture` draws the tree.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from foreword.errors import ForewordError
from foreword.prompting import decomposition
from foreword.prompting.decomposition import WEIGHTS, State, read_value, read_vote
from foreword.prompting.final_answer import final_answer
from foreword.prompting.strategies._checking import checked, chosen_verifier
from foreword.prompting.strategy import Draft, Run, StrategySettings, together
from foreword.prompting.tree import Guide, Limits, Node, Tree, breadth_first, depth_first
from foreword.prompting.turns import with_question
from foreword.telemetry.trace import OpenSpan
from foreword.types import Message

MOST_THOUGHTS = 64
"""Next states of one state; a model may write without end."""
UNREAD = WEIGHTS["likely"]
JUDGEMENTS, VOTES = 1, 5
_STOPPED = {
    "": "broken off",
    "expansions": "no more expansions were allowed",
    "depth": "no path ended within the depth",
    "exhausted": "nothing was left to go on from",
}
EXPAND = "expand"
"""What the spans of expansions are called."""


class Settings(StrategySettings):
    """How thoughts are made, judged and searched.

    Attributes:
        decomposition: what a thought is: `general` (a step in free text), `game24`, or one of a plug-in.
        generator: `propose` asks once for several different thoughts, `sample` draws `width` single ones.
        width: thoughts asked for at each state, where the decomposition does not ask for all there are.
        evaluator: `value` judges each state by itself, `vote` has the model choose among those of a level, `none` keeps their order.
        evaluations: judgements of a state, or votes of a level; null is one judgement, or five votes.
        search: `bfs` (beam) or `dfs` (backtracking).
        beam: states kept of a level (bfs) or of a state's next ones (dfs); null keeps all.
        depth: thoughts on a path at most.
        expansions: states gone on from at most. Calls, tokens, money and seconds are limited by the run's budget.
        least: states worth less are dropped. A value is 20 (sure), 1 (likely) to 0.001 (impossible), a share of votes 0 to 1.
        at_once: states of a level that are gone on from at the same time; with 1 the search ends at the very first solution.
        verifier: name of a verifier that a finished path must pass, the first that does ends the search; without one, that of the
            resources is used, where there is one.
        temperature, tokens: for thoughts and judgements; the answer is drawn as the caller wants it.
    """

    decomposition: str = "general"
    generator: Literal["propose", "sample"] = "propose"
    width: Annotated[int, Field(ge=1, le=MOST_THOUGHTS)] = 5
    evaluator: Literal["value", "vote", "none"] = "value"
    evaluations: Annotated[int, Field(ge=1, le=64)] | None = None
    search: Literal["bfs", "dfs"] = "bfs"
    beam: Annotated[int, Field(ge=1)] | None = 3
    depth: Annotated[int, Field(ge=1, le=64)] = 4
    expansions: Annotated[int, Field(ge=1)] = 100
    least: Annotated[float, Field(ge=0.0)] = 0.01
    at_once: Annotated[int, Field(ge=1)] = 8
    verifier: str = ""
    temperature: Annotated[float, Field(ge=0.0)] = 0.7
    tokens: Annotated[int, Field(ge=1)] = 512


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """Searches, then answers from the best path; asks the model for the answer where the path does not spell it out.

    Raises:
        RegistryError: there is no such decomposition or verifier.
        StrategyError: the question is none that the decomposition knows.
    """
    return await _Search(conversation, settings, run).answer()


class _Search:
    """One question: what the tree's search is told, by asking the model."""

    def __init__(self, conversation: tuple[Message, ...], settings: Settings, run: Run) -> None:
        self._conversation, self._settings, self._run = conversation, settings, run
        self._ways = decomposition.get(settings.decomposition)
        self._verify = chosen_verifier(settings.verifier, run)
        self._tree = Tree.of(self._ways.begin(conversation[-1].content))
        self._spans: dict[int, OpenSpan] = {}

    async def answer(self) -> Draft:
        settings = self._settings
        guide = Guide(
            expand=self._expand,
            evaluate=None if settings.evaluator == "none" else self._evaluate,
            finished=self._ways.finished,
            key=lambda state: state.key,
            check=None if self._verify is None else self._check,
        )
        limits = Limits(
            beam=settings.beam, depth=settings.depth, expansions=settings.expansions, least=settings.least, at_once=settings.at_once
        )
        try:
            await (breadth_first if settings.search == "bfs" else depth_first)(self._tree, guide, limits)
            return await self._closed(self._tree.best())
        except ForewordError:
            self._run.keep(replace(self._draft(self._tree.best()), candidates=self._candidates()))
            raise
        finally:
            self._record()

    async def _closed(self, node: Node[State]) -> Draft:
        draft, found = self._draft(node), self._candidates()
        if draft.final is not None:
            return replace(draft, candidates=found)
        completion = await self._run.ask(with_question(self._conversation, self._ways.close(node.state)), purpose="answer")
        text, final = "\n".join((*node.state.thoughts, completion.text)), final_answer(completion.text)
        return replace(draft, text=text, final=final, candidates=tuple(dict.fromkeys((*found, final))))

    def _candidates(self) -> tuple[str, ...]:
        """The short answers of all paths that came to their end."""
        texts = (self._ways.answer(end.state) for end in self._tree.ended())
        return tuple(dict.fromkeys(final_answer(text) for text in texts if text is not None))

    def _draft(self, node: Node[State]) -> Draft:
        """What a node comes to as it stands; without a short answer where its thoughts spell none out."""
        whole = self._ways.answer(node.state)
        return Draft(
            text="\n".join(node.state.thoughts) if whole is None else whole,
            final=None if whole is None else final_answer(whole),
            note=self._note(),
        )

    def _note(self) -> str:
        tree = self._tree
        if tree.solution is not None:
            ended = "a path passed the check" if tree.solution.status == "solved" else "a path came to its end"
        else:
            ended = _STOPPED[tree.stopped]
        return f"{tree.expansions} expansions, {len(tree.nodes) - 1} thoughts; {ended}"

    async def _expand(self, node: Node[State]) -> list[State]:
        """The next states, by the model."""
        settings, state = self._settings, node.state
        with self._run.tracer.span("search", EXPAND, {"node": node.number, "depth": node.depth, "state": str(state)}) as span:
            self._spans[node.number] = span
            if settings.generator == "propose":
                texts = await self._texts(self._ways.propose(state, settings.width), 1, "propose")
                found = self._ways.read(state, texts[0], settings.width)
            else:
                texts = await self._texts(self._ways.sample(state), settings.width, "sample")
                found = [one for text in texts for one in self._ways.read(state, text, 1)[:1]]
            span.set(read=len(found))
        return found[:MOST_THOUGHTS]

    async def _evaluate(self, nodes: Sequence[Node[State]]) -> list[float]:
        """What states are worth, by the model."""
        with self._run.tracer.span("check", self._settings.evaluator, {"states": len(nodes)}) as span:
            values, unread = await (self._voted(nodes) if self._settings.evaluator == "vote" else self._valued(nodes))
            span.set(unread=unread)
        return values

    async def _valued(self, nodes: Sequence[Node[State]]) -> tuple[list[float], int]:
        """Means of judgements, and how many judgements could not be read."""
        count = self._settings.evaluations or JUDGEMENTS
        texts = await together([self._texts(self._ways.judge(node.state), count, "value") for node in nodes])
        read = [[value for text in several if (value := read_value(text)) is not None] for several in texts]
        return [statistics.fmean(values) if values else UNREAD for values in read], sum(count - len(values) for values in read)

    async def _voted(self, nodes: Sequence[Node[State]]) -> tuple[list[float], int]:
        """Shares of the votes, and how many votes could not be read. A single state needs no vote."""
        if len(nodes) == 1:
            return [1.0], 0
        texts = await self._texts(self._ways.vote([node.state for node in nodes]), self._settings.evaluations or VOTES, "vote")
        votes = [vote for text in texts if (vote := read_vote(text, len(nodes))) is not None]
        shares = [votes.count(index) / len(votes) for index in range(len(nodes))] if votes else [UNREAD] * len(nodes)
        return shares, len(texts) - len(votes)

    async def _check(self, node: Node[State]) -> float:
        """How right a finished path is."""
        assert self._verify is not None
        verdict = await checked(self._verify, self._conversation, self._draft(node).text, self._run)
        return verdict.score

    async def _texts(self, prompt: str, count: int, purpose: str) -> list[str]:
        settings = self._settings
        completions = await self._run.ask_several(
            with_question(self._conversation, prompt),
            count,
            purpose=purpose,
            temperature=settings.temperature,
            max_new_tokens=settings.tokens,
        )
        return [completion.text for completion in completions]

    def _record(self) -> None:
        """Tells each expansion's span what became of its thoughts."""
        for number, span in self._spans.items():
            node = self._tree.nodes[number]
            span.set(value=node.value, status=node.status, thoughts=[self._told(child) for child in node.children])

    def _told(self, node: Node[State]) -> dict[str, JsonValue]:
        told: dict[str, JsonValue] = {"node": node.number, "state": str(node.state), "depth": node.depth, "value": node.value}
        return told | {"status": node.status, "solution": node is self._tree.solution}
