"""Which of a task's labels a free text means: strategies write, and a classification wants one of its labels."""

from __future__ import annotations

import re
from collections.abc import Sequence


def label_meant(text: str, labels: Sequence[str]) -> str:
    """The label that a text says: the text is one, apart from case and outer punctuation, or it names exactly one as whole words.

    A label within a longer one that is named does not count (`card` in `lost card`). Where none is named, or several are, the text comes
    back as it is, which is no label.
    """
    plain = text.strip().strip(".,;:!?\"'`*() \t\n").casefold()
    for label in labels:
        if label.strip().casefold() == plain:
            return label
    rest, named = text.casefold(), []
    for label in sorted(labels, key=len, reverse=True):
        rest, count = re.subn(rf"(?<!\w){re.escape(label.strip().casefold())}(?!\w)", "\0", rest)
        if count:
            named.append(label)
    return named[0] if len(named) == 1 else text
