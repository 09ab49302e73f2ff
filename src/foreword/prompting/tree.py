"""Searching a tree of states, breadth first with a beam or depth first with backtracking (Yao et al. 2023, algorithms 1 and 2).

What a state is, how next ones are made, and what one is worth are callables, so the search knows no model. States with equal keys are
judged and gone on from once. What a search finds stands in the `Tree` that it is given, also when a callable raises half way.

    tree = Tree.of(start)
    await breadth_first(tree, guide, Limits(beam=5, depth=3))
    tree.solution or tree.best()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from foreword.prompting.strategy import together

S = TypeVar("S")

Status = Literal["open", "kept", "pruned", "repeated", "finished", "failed", "solved"]
"""`open`: not judged yet. `pruned`: below the least value, or outside the beam. `repeated`: the same state was there before. `finished`: at
its end, and not checked. `failed`, `solved`: at its end, and checked."""


@dataclass(slots=True, kw_only=True, eq=False)
class Node(Generic[S]):
    """One state in a tree.

    Attributes:
        number: counts from 0 in the order in which states are made.
        value: what it was judged to be worth; None where nobody was asked.
        score: what the check said of it, 0 to 1; None where it was not checked.
        expanded: whether next states were asked for.
    """

    number: int
    state: S
    parent: Node[S] | None = None
    depth: int = 0
    value: float | None = None
    score: float | None = None
    status: Status = "open"
    expanded: bool = False
    children: list[Node[S]] = field(default_factory=list)

    def path(self) -> list[Node[S]]:
        """From the root to this node."""
        return [self] if self.parent is None else [*self.parent.path(), self]


@dataclass(slots=True, kw_only=True, eq=False)
class Tree(Generic[S]):
    """What a search has found so far.

    Attributes:
        expansions: nodes whose next states were asked for.
        evaluations: states that were judged.
        solution: where the search came to, None where it came to no end.
        stopped: why it stopped without one: `expansions` (so many as it may), `depth`, `exhausted` (nothing was left to go on from).
    """

    nodes: list[Node[S]]
    expansions: int = 0
    evaluations: int = 0
    solution: Node[S] | None = None
    stopped: Literal["", "expansions", "depth", "exhausted"] = ""
    _seen: set[Hashable] = field(default_factory=set)

    @classmethod
    def of(cls, state: S) -> Tree[S]:
        """A tree of one node, from which to search."""
        return cls(nodes=[Node(number=0, state=state, status="kept")])

    @property
    def root(self) -> Node[S]:
        """The node at which the search begins."""
        return self.nodes[0]

    def ended(self) -> list[Node[S]]:
        """Nodes at the end of a path, in the order in which they were made."""
        return [node for node in self.nodes if node.status in ("finished", "failed", "solved")]

    def best(self) -> Node[S]:
        """The solution; else what is nearest to one: an end before a way to it, by the check's score, by value, and by depth."""
        if self.solution is not None:
            return self.solution
        return max((node for node in self.nodes if node.status != "repeated"), key=_nearness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide(Generic[S]):
    """What a search is told of its states.

    Attributes:
        expand: the next states of a node.
        evaluate: what states are worth, more is better; called with all new ones of a level (or of a node, depth first) that are not at
            their end, and with those too where there is no `check`. None keeps the order in which they were made.
        check: whether a state at its end is a solution, 0 (no) to 1 (yes). None takes the best-valued end.
    """

    expand: Callable[[Node[S]], Awaitable[Sequence[S]]]
    evaluate: Callable[[Sequence[Node[S]]], Awaitable[Sequence[float]]] | None
    finished: Callable[[S], bool]
    key: Callable[[S], Hashable]
    check: Callable[[Node[S]], Awaitable[float]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a search may go.

    Attributes:
        beam: states kept of a level (breadth first) or of a node's next ones (depth first); None keeps all.
        depth: steps from the root at most.
        expansions: nodes whose next states may be asked for.
        least: states worth less are not gone on from.
        at_once: nodes of a level that are expanded at the same time. The search can end only after all of them.
    """

    beam: int | None = 5
    depth: int = 4
    expansions: int = 100
    least: float = 0.0
    at_once: int = 1


async def breadth_first(tree: Tree[S], guide: Guide[S], limits: Limits) -> None:
    """Goes on from the best states of a level together, until one is a solution. Raises what the guide's callables raise."""
    level = [tree.root]
    while level and level[0].depth < limits.depth:
        children: list[Node[S]] = []
        for start in range(0, len(level), limits.at_once):
            room = limits.expansions - tree.expansions
            if room <= 0:
                tree.stopped = "expansions"
                return
            children += await _grow(tree, guide, level[start : start + min(limits.at_once, room)])
            if tree.solution is not None:
                return
        kept = await _chosen(tree, guide, limits, children)
        if kept and kept[0].status == "finished":
            tree.solution = kept[0]
            return
        level = [node for node in kept if node.status == "kept"]
    tree.stopped = "depth" if level else "exhausted"


async def depth_first(tree: Tree[S], guide: Guide[S], limits: Limits) -> None:
    """Goes on from the best next state, and back to the next best where a path is pruned or at its end. Raises as `breadth_first`."""
    waiting, too_deep = [tree.root], False
    while waiting:
        node = waiting.pop()
        if node.status == "finished":
            tree.solution = node
            return
        if node.depth >= limits.depth:
            too_deep = True
            continue
        if tree.expansions >= limits.expansions:
            tree.stopped = "expansions"
            return
        children = await _grow(tree, guide, [node])
        if tree.solution is not None:
            return
        waiting += reversed(await _chosen(tree, guide, limits, children))
    tree.stopped = "depth" if too_deep else "exhausted"


async def _grow(tree: Tree[S], guide: Guide[S], nodes: Sequence[Node[S]]) -> list[Node[S]]:
    """The new next states of some nodes; the first one that is a solution ends it."""
    for node in nodes:
        node.expanded = True
    tree.expansions += len(nodes)
    tree._seen.add(guide.key(tree.root.state))
    found = await together([guide.expand(node) for node in nodes])
    new: list[Node[S]] = []
    for node, states in zip(nodes, found, strict=True):
        for state in states:
            child = _added(tree, node, state)
            if (key := guide.key(state)) in tree._seen:
                child.status = "repeated"
                continue
            tree._seen.add(key)
            if guide.finished(state) and guide.check is not None:
                child.score = await guide.check(child)
                child.status = "solved" if child.score >= 1.0 else "failed"
                if child.status == "solved":
                    tree.solution = child
                    return new
            else:
                new.append(child)
    return new


async def _chosen(tree: Tree[S], guide: Guide[S], limits: Limits, nodes: list[Node[S]]) -> list[Node[S]]:
    """The nodes to go on from, the best first; the others are pruned."""
    if not nodes:
        return []
    if guide.evaluate is not None:
        values = await guide.evaluate(nodes)
        tree.evaluations += len(nodes)
        for node, value in zip(nodes, values, strict=True):
            node.value = value
    ranked = sorted((node for node in nodes if node.value is None or node.value >= limits.least), key=_worth, reverse=True)
    kept = ranked[: limits.beam]
    for node in nodes:
        node.status = "pruned"
    for node in kept:
        node.status = "finished" if guide.finished(node.state) else "kept"
    return kept


def _added(tree: Tree[S], parent: Node[S], state: S) -> Node[S]:
    node = Node(number=len(tree.nodes), state=state, parent=parent, depth=parent.depth + 1)
    tree.nodes.append(node)
    parent.children.append(node)
    return node


def _nearness(node: Node[S]) -> tuple[float, bool, bool, float, int]:
    return node.score or 0.0, node.status == "finished", node.status != "pruned", _worth(node), node.depth


def _worth(node: Node[S]) -> float:
    return 0.0 if node.value is None else node.value
