"""`lm`: only target tokens count, siblings do not see each other, and no weight is in the graph."""

from __future__ import annotations

import pytest
import torch

from foreword.engine import Row
from foreword.tuning.objectives import lm

CONTEXT = "Say it in one sentence."
FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2", "gpt_neox")


@pytest.fixture
def rows(engine):
    def row(prompt: str, *targets: str) -> Row:
        return Row(prompt=engine.encode(prompt), targets=tuple(engine.answer_ids(target) for target in targets))

    return [row("Aromi, Chinese:", "It is near the river.", "Chinese food", "Aromi"), row("Eagle:", "a cheap pub")]


def leaves(engine):
    return [tensor.detach().float().requires_grad_() for tensor in engine.read(engine.encode(CONTEXT))]


def naive(engine, context: tuple[int, ...], prompt: tuple[int, ...], target: tuple[int, ...]) -> float:
    """The module's own cross-entropy over the whole text, summed where a target token is predicted."""
    ids = [*context, *prompt, *target]
    with torch.no_grad():
        log_probs = engine.module(input_ids=torch.tensor([ids]), use_cache=False).logits.float().log_softmax(-1)[0]
    first = len(context) + len(prompt)
    return -sum(float(log_probs[place - 1, ids[place]]) for place in range(first, len(ids)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_the_target_tokens_alone(engine_of, family):
    engine = engine_of(family)
    context, prompt = engine.encode(CONTEXT), engine.encode("Aromi, Chinese:")
    targets = tuple(engine.answer_ids(text) for text in ("It is near the river.", "a cheap pub"))
    with torch.no_grad():
        loss = float(lm.loss(engine, [Row(prompt=prompt, targets=targets)], *engine.read(context)))
    assert loss == pytest.approx(sum(naive(engine, context, prompt, target) for target in targets), rel=1e-3)


def test_several_targets_give_the_gradient_of_separate_rows(engine, rows):
    apart = [Row(prompt=row.prompt, targets=(target,)) for row in rows for target in row.targets]
    gradients = []
    for chosen in (rows, apart):
        key_LHND, value_LHND = leaves(engine)
        loss = lm.loss(engine, chosen, key_LHND, value_LHND)
        loss.backward()
        gradients.append((float(loss.detach()), key_LHND.grad, value_LHND.grad))
    (loss, key, value), (other_loss, other_key, other_value) = gradients
    assert loss == pytest.approx(other_loss, rel=1e-5)
    torch.testing.assert_close(key, other_key, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(value, other_value, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_the_slope(engine, rows):
    key_LHND, value_LHND = leaves(engine)
    lm.loss(engine, rows, key_LHND, value_LHND).backward()
    draw = torch.Generator().manual_seed(0)
    for tensor, place in ((key_LHND, 0), (value_LHND, 1)):
        direction = torch.randn(tensor.shape, generator=draw)
        direction /= direction.norm()
        ends = []
        for step in (1e-2, -1e-2):
            moved = [key_LHND.detach().clone(), value_LHND.detach().clone()]
            moved[place] += step * direction
            with torch.no_grad():
                ends.append(float(lm.loss(engine, rows, moved[0], moved[1])))
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float((tensor.grad * direction).sum()), rel=0.02, abs=0.02)


def graph_leaves(loss: torch.Tensor) -> list[torch.Tensor]:
    """Every tensor that the backward pass would put a gradient into."""
    found, seen, todo = [], set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo += [parent for parent, _ in node.next_functions]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_no_weight_is_in_the_graph(engine_of, family):
    engine = engine_of(family)
    rows = [Row(prompt=engine.encode("Eagle:"), targets=(engine.answer_ids("a cheap pub"),))]
    key_LHND, value_LHND = leaves(engine)
    loss = lm.loss(engine, rows, key_LHND, value_LHND)
    found = graph_leaves(loss)
    assert len(found) == 2 and all(any(leaf is wanted for wanted in (key_LHND, value_LHND)) for leaf in found)
    loss.backward()
    assert key_LHND.grad is not None
    assert all(weight.grad is None and not weight.requires_grad for weight in engine.module.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputing_gives_the_same_gradients(engine_of, family):
    engine = engine_of(family)
    rows = [Row(prompt=engine.encode("Eagle:"), targets=(engine.answer_ids("a cheap pub"), engine.answer_ids("near")))]
    plain, again = leaves(engine), leaves(engine)
    lm.loss(engine, rows, *plain).backward()
    with engine.recomputing():
        lm.loss(engine, rows, *again).backward()
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)
