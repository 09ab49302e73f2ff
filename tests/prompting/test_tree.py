"""The search alone, on trees of numbers: from n one goes to 3n, 3n + 1 and 3n + 2, and looks for a target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.prompting.tree import Guide, Limits, Node, Tree, breadth_first, depth_first

DEPTH = 4
SEARCHES = (breadth_first, depth_first)


class Numbers:
    """Counts what it is asked. `worth` judges a number; `target` is looked for among those at the end."""

    def __init__(self, *, target: int | None = None, worth: Callable[[int], float] | None = None, ends: int = 3 ** (DEPTH - 1)) -> None:
        self.expanded: list[int] = []
        self.judged: list[int] = []
        self.checked: list[int] = []
        self._target, self._worth, self._ends = target, worth, ends

    def guide(self) -> Guide[int]:
        return Guide(
            expand=self._expand,
            evaluate=None if self._worth is None else self._evaluate,
            finished=lambda number: number >= self._ends,
            key=lambda number: number,
            check=None if self._target is None else self._check,
        )

    async def _expand(self, node: Node[int]) -> Sequence[int]:
        self.expanded.append(node.state)
        return [3 * node.state + offset for offset in range(3)]

    async def _evaluate(self, nodes: Sequence[Node[int]]) -> Sequence[float]:
        assert self._worth is not None
        self.judged += [node.state for node in nodes]
        return [self._worth(node.state) for node in nodes]

    async def _check(self, node: Node[int]) -> float:
        self.checked.append(node.state)
        return float(node.state == self._target)


def ran(search: Any, numbers: Numbers, start: int = 1, **limits: Any) -> Tree[int]:
    tree = Tree.of(start)
    asyncio.run(search(tree, numbers.guide(), Limits(**{"depth": DEPTH, **limits})))
    return tree


def towards(target: int) -> Callable[[int], float]:
    """1 for numbers from which the target can be reached, else 0.001."""
    above = {target // 3**power for power in range(DEPTH + 1)}
    return lambda number: 1.0 if number in above else 0.001


@pytest.mark.parametrize("search", SEARCHES)
@given(target=st.integers(27, 53))
@settings(max_examples=27, deadline=None)
def test_an_exact_judge_leads_straight_to_the_solution(search: Any, target: int) -> None:
    numbers = Numbers(target=target, worth=towards(target))
    tree = ran(search, numbers, least=0.01)
    assert tree.solution is not None and tree.solution.state == target and tree.solution.status == "solved"
    assert tree.expansions == len(numbers.expanded) == 3
    assert [node.state for node in tree.solution.path()] == [1, *numbers.expanded[1:], target]
    assert tree.best() is tree.solution and tree.stopped == ""


@pytest.mark.parametrize("search", SEARCHES)
@given(target=st.integers(27, 53))
@settings(max_examples=27, deadline=None)
def test_without_a_judge_nothing_is_left_out_and_the_first_solution_ends_it(search: Any, target: int) -> None:
    numbers = Numbers(target=target)
    tree = ran(search, numbers, beam=None)
    assert tree.solution is not None and tree.solution.state == target
    assert numbers.checked == list(range(27, target + 1))
    assert numbers.judged == [] and tree.evaluations == 0
    if search is breadth_first:
        assert numbers.expanded == [1, 3, 4, 5, *range(9, target // 3 + 1)]


def test_a_beam_keeps_the_best_of_a_level_and_equals_stay_in_order() -> None:
    numbers = Numbers(worth=lambda number: {4: 2.0, 3: 1.0, 5: 1.0}.get(number, 0.5))
    tree = ran(breadth_first, numbers, beam=2, depth=2)
    assert numbers.expanded == [1, 4, 3]
    assert {node.state: node.status for node in tree.root.children} == {3: "kept", 4: "kept", 5: "pruned"}
    assert tree.stopped == "depth" and tree.best().state == 4


def test_depth_first_backtracks_from_what_is_pruned() -> None:
    numbers = Numbers(target=50, worth=lambda number: {3: 9.0, 4: 5.0, 5: 7.0, 16: 3.0}.get(number, 0.0))
    tree = ran(depth_first, numbers, least=1.0)
    assert numbers.expanded == [1, 3, 5, 16]
    assert tree.solution is not None and tree.solution.state == 50
    assert 4 not in numbers.expanded and tree.root.children[1].status == "kept"


@pytest.mark.parametrize("search", SEARCHES)
def test_the_number_of_expansions_is_a_limit(search: Any) -> None:
    numbers = Numbers(target=53)
    tree = ran(search, numbers, beam=None, expansions=6, at_once=4)
    assert (tree.expansions, len(numbers.expanded), tree.solution, tree.stopped) == (6, 6, None, "expansions")


@pytest.mark.parametrize("search", SEARCHES)
def test_nothing_to_go_on_from_ends_it(search: Any) -> None:
    tree = ran(search, Numbers(worth=lambda number: 0.0), least=0.5)
    assert tree.stopped == "exhausted" and tree.solution is None and tree.best() is tree.root
    assert {node.status for node in tree.root.children} == {"pruned"}


@pytest.mark.parametrize("search", SEARCHES)
def test_without_a_check_the_first_end_that_is_kept_is_taken(search: Any) -> None:
    numbers = Numbers(worth=lambda number: float(number))
    tree = ran(search, numbers, beam=1)
    assert tree.solution is not None and (tree.solution.state, tree.solution.status) == (53, "finished")
    assert numbers.expanded == [1, 5, 17]


@pytest.mark.parametrize("search", SEARCHES)
def test_equal_states_are_judged_and_gone_on_from_once(search: Any) -> None:
    asked: list[int] = []

    async def expand(node: Node[int]) -> Sequence[int]:
        asked.append(node.state)
        return [node.state % 3, (node.state + 1) % 3, (node.state + 1) % 3]

    judged: list[int] = []

    async def evaluate(nodes: Sequence[Node[int]]) -> Sequence[float]:
        judged.extend(node.state for node in nodes)
        return [1.0] * len(nodes)

    tree = Tree.of(0)
    guide = Guide(expand=expand, evaluate=evaluate, finished=lambda number: False, key=lambda number: number)
    asyncio.run(search(tree, guide, Limits(depth=9, beam=None)))
    assert sorted(asked) == [0, 1, 2] and sorted(judged) == [1, 2]
    assert tree.stopped == "exhausted" and sum(node.status == "repeated" for node in tree.nodes) == 7


def test_a_level_is_expanded_at_the_same_time_and_in_order() -> None:
    under_way, most = 0, 0

    async def expand(node: Node[int]) -> Sequence[int]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        # Later nodes come back first.
        await asyncio.sleep(0.01 / (node.state + 1))
        under_way -= 1
        return [3 * node.state + offset for offset in range(3)]

    tree = Tree.of(1)
    guide = Guide(expand=expand, evaluate=None, finished=lambda number: False, key=lambda number: number)
    asyncio.run(breadth_first(tree, guide, Limits(beam=None, depth=3, at_once=2)))
    assert most == 2
    assert [node.state for node in tree.nodes] == [1, 3, 4, 5, *range(9, 18), *range(27, 54)]


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_raised_half_way_leaves_what_was_found(search: Any) -> None:
    async def expand(node: Node[int]) -> Sequence[int]:
        if node.state > 1:
            raise ValueError("no more")
        return [2, 3]

    tree = Tree.of(1)
    guide = Guide(expand=expand, evaluate=None, finished=lambda number: False, key=lambda number: number)
    with pytest.raises(ValueError, match="no more"):
        asyncio.run(search(tree, guide, Limits()))
    assert [node.state for node in tree.nodes] == [1, 2, 3] and tree.best().depth == 1


def test_the_best_is_what_the_check_likes_most_and_ends_come_before_ways() -> None:
    tree: Tree[str] = Tree.of("root")

    def add(state: str, **fields: Any) -> None:
        tree.nodes.append(Node(number=len(tree.nodes), state=state, parent=tree.root, depth=1, **fields))

    add("pruned", status="pruned", value=0.5)
    assert tree.best().state == "root"
    add("kept", status="kept", value=3.0)
    assert tree.best().state == "kept"
    add("finished", status="finished", value=1.0)
    assert tree.best().state == "finished"
    add("half right", status="failed", score=0.5)
    assert tree.best().state == "half right"
    assert [node.state for node in tree.ended()] == ["finished", "half right"]
