"""From findings to warnings: what is worth a look before tuning, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from foreword.data.excerpt import excerpt
from foreword.data.report import Leak, Side, Warned

FEW_ROWS = 50
FEW_PER_LABEL = 5
IMBALANCE = 10.0
NEAR_SHARE = 0.02
_SHOWN = 5


def warn(train: Side, dev: Side | None, leaks: Sequence[Leak], *, window: int | None) -> tuple[Warned, ...]:
    """Warnings about the training data, the dev data and the two together, gravest first within each."""
    found = [*_about_side(train, "Training data", window), *_about_training(train)]
    if dev is not None:
        found += [*_about_side(dev, "Dev data", window), *_about_both(train, dev, leaks)]
    return tuple(found)


def lines_text(lines: Iterable[int]) -> str:
    """`line 3`, or `lines 3, 8, 12 and 40 more`."""
    listed = list(lines)
    shown = ", ".join(str(line) for line in listed[:_SHOWN])
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return f"line{'' if len(listed) == 1 else 's'} {shown}{more}"


def _names(labels: Sequence[str]) -> str:
    shown = ", ".join(f"`{excerpt(label)}`" for label in labels[:_SHOWN])
    return shown + (f" and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else "")


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} rows ({part / max(whole, 1):.1%})"


def _about_side(side: Side, name: str, window: int | None) -> Iterator[Warned]:
    if side.skipped:
        yield Warned(
            code="skipped-rows",
            message=f"{name}: {_share(len(side.skipped), side.rows + len(side.skipped))} were left out: "
            f"{lines_text(skip.line for skip in side.skipped)}; the first: {side.skipped[0].reason}.",
            advice="Mend these rows, or be content without them.",
        )
    if side.too_long:
        yield Warned(
            code="too-long",
            message=f"{name}: {_share(len(side.too_long), side.rows)} exceed the window of {window:,} tokens: "
            f"{lines_text(row.line for row in side.too_long)}.",
            advice="Shorten or split them: they would be cut or skipped.",
        )
    if side.conflicts:
        rows = sum(len(group.lines) for group in side.conflicts)
        first = side.conflicts[0]
        yield Warned(
            code="conflicting-labels",
            message=f"{name}: {len(side.conflicts):,} prompts ({rows:,} rows) stand under different labels, for example "
            f"{lines_text(first.lines)}: {_names(first.labels)}.",
            advice="Decide which label is right; no model can satisfy both.",
        )
    if side.duplicates:
        yield Warned(
            code="duplicates",
            message=f"{name}: {_share(side.surplus_rows, side.rows)} repeat an earlier row exactly, for example "
            f"{lines_text(side.duplicates[0].lines)}.",
            advice="Keep each once: `--dedupe`.",
        )
    yield from _odd_labels(side, name)
    if side.nearly_empty:
        yield Warned(
            code="nearly-empty",
            message=f"{name}: {_share(len(side.nearly_empty), side.rows)} have a prompt without a letter or digit: "
            f"{lines_text(side.nearly_empty)}.",
            advice="Remove them unless such input really occurs.",
        )
    if 0 < len(side.padded) < side.rows or (side.padded and side.kind == "classification"):
        yield Warned(
            code="padded-completions",
            message=f"{name}: {_share(len(side.padded), side.rows)} have blanks around a completion: {lines_text(side.padded)}.",
            advice="Strip them, or the model learns the blanks in part.",
        )


def _odd_labels(side: Side, name: str) -> Iterator[Warned]:
    at_odds = [group for group in side.near_duplicates if len(group.labels) > 1]
    if at_odds:
        first = at_odds[0]
        yield Warned(
            code="near-duplicates-at-odds",
            message=f"{name}: {len(at_odds):,} groups of nearly the same prompt have different labels, for example "
            f"{lines_text(first.lines)}: {_names(first.labels)}.",
            advice="Look whether the labels are right: such rows are the likeliest labelling errors.",
        )


def _about_training(train: Side) -> Iterator[Warned]:
    if train.rows < FEW_ROWS:
        yield Warned(
            code="few-rows",
            message=f"Training data: {train.rows:,} rows.",
            advice=f"Below {FEW_ROWS} rows results vary much with the seed; collect more or run several seeds.",
        )
    alike = sum(len(group.lines) for group in train.near_duplicates)
    if alike > NEAR_SHARE * train.rows:
        yield Warned(
            code="near-duplicates",
            message=f"Training data: {_share(alike, train.rows)} have a near-duplicate, for example "
            f"{lines_text(train.near_duplicates[0].lines)}.",
            advice="Fewer distinct rows are there than it seems (rows made from one template are alike by nature); "
            "`--split` keeps them on one side.",
        )
    if 0 < train.with_user < train.rows:
        yield Warned(
            code="partial-users",
            message=f"Training data: {_share(train.rows - train.with_user, train.rows)} lack the `user` that others have.",
            advice="Fill it in everywhere or remove the field.",
        )
    if train.labels is not None:
        yield from _about_labels(train.labels)


def _about_labels(labels: dict[str, int]) -> Iterator[Warned]:
    used = {label: count for label, count in labels.items() if count}
    if len(used) < 2:
        yield Warned(code="one-label", message="Training data: all rows have one label.", advice="A classifier needs at least two.")
        return
    twins: dict[str, list[str]] = {}
    for label in used:
        twins.setdefault(" ".join(label.casefold().split()), []).append(label)
    if alike := [same for same in twins.values() if len(same) > 1]:
        yield Warned(
            code="label-spelling",
            message=f"Training data: labels that differ by case or blanks alone: {', '.join(map(repr, alike[0]))}.",
            advice="Spell them alike, or they count as different answers.",
        )
    most, least = max(used, key=used.__getitem__), min(used, key=used.__getitem__)
    if used[most] > IMBALANCE * used[least]:
        yield Warned(
            code="imbalance",
            message=f"Training data: {_names([most])} has {used[most]:,} rows, {_names([least])} {used[least]:,}.",
            advice="Judge by macro-F1, not accuracy; collect more of the rare labels.",
        )
    if rare := [label for label, count in labels.items() if count < FEW_PER_LABEL]:
        yield Warned(
            code="rare-labels",
            message=f"Training data: fewer than {FEW_PER_LABEL} rows for {_names(rare)}.",
            advice="Collect more rows for them, or merge them into another label.",
        )


def _about_both(train: Side, dev: Side, leaks: Sequence[Leak]) -> Iterator[Warned]:
    if train.kind != dev.kind:
        yield Warned(
            code="different-kinds",
            message=f"Training data are {train.kind}, dev data {dev.kind}.",
            advice="Give both the same fields.",
        )
    exact = [leak for leak in leaks if leak.exact]
    near = [leak for leak in leaks if not leak.exact]
    if exact:
        yield Warned(
            code="leakage",
            message=f"{_share(len(exact), dev.rows)} of the dev data have a prompt that also stands in the training data, for example "
            f"dev line {exact[0].dev_line} and training line {exact[0].train_line}.",
            advice="Remove them from the training data: `--dedupe` with `--dev` does.",
        )
    if near:
        yield Warned(
            code="near-leakage",
            message=f"{_share(len(near), dev.rows)} of the dev data have a near-duplicate in the training data, for example dev line "
            f"{near[0].dev_line} and training line {near[0].train_line} ({near[0].similarity:.2f}).",
            advice="Dev results will look better than they are; split again with `--split`, which keeps near-duplicates together.",
        )
    if train.labels is not None and dev.labels is not None:
        yield from _about_both_labels(train.labels, dev.labels)


def _about_both_labels(train: dict[str, int], dev: dict[str, int]) -> Iterator[Warned]:
    unseen = [label for label, count in dev.items() if count and not train.get(label)]
    if unseen:
        yield Warned(
            code="unseen-labels",
            message=f"Dev data have labels that no training row has: {_names(unseen)}.",
            advice="Add training rows for them or correct the spelling.",
        )
    untested = [label for label, count in train.items() if count and not dev.get(label)]
    if untested:
        yield Warned(
            code="untested-labels",
            message=f"Labels that no dev row has: {_names(untested)}.",
            advice="Add dev rows for them, or nothing is known about their quality.",
        )
