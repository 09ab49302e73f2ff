"""Draws the tree of thoughts in the documentation: one puzzle, searched with the script that knows arithmetic.

    python docs/tree_picture.py

The same code gives the same picture, byte for byte; a test compares it with the one that is there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "tree.svg"
NUMBERS = (4, 9, 10, 13)
STRATEGY = "tot(decomposition=game24, verifier=game24, evaluations=1, beam=3)"


def picture() -> str:
    """The picture as SVG."""
    from foreword.engines import scripted
    from foreword.prompting import model, strategy, tree_picture
    from foreword.prompting.verifiers.game24 import question
    from foreword.types import Message

    async def solved() -> strategy.Solved:
        asked = model.of(scripted.load("arithmetic"))
        try:
            return await strategy.solve(strategy.parse(STRATEGY), [Message(role="user", content=question(NUMBERS))], asked)
        finally:
            await asked.close()

    return tree_picture.as_svg(asyncio.run(solved()).trace, title=f"Game of 24: {' '.join(map(str, NUMBERS))}")


def main() -> None:
    """Writes the picture."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
