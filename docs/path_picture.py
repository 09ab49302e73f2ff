"""Draws the path in the documentation: its stages in their order, where a request leaves it early, and where one goes back.

    python docs/path_picture.py

The stages are the code's own; the same code gives the same picture, byte for byte, and a test compares it with the one that is there.
"""

from __future__ import annotations

from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "path.svg"
SAYS = {
    "intake": ("what task,", "whose, by when"),
    "limit": ("how many", "requests"),
    "guard-in": ("what may", "come in"),
    "budget": ("is there", "money left"),
    "cache": ("is the answer", "known"),
    "assemble": ("what it has", "to read"),
    "route": ("which model", "first"),
    "reserve": ("set money", "aside"),
    "infer": ("ask the model,", "or the next one"),
    "check": ("is the answer", "good enough"),
    "bill": ("what it cost,", "to the ledger"),
}
ALWAYS = "Whatever becomes of a request, it is billed: one that is refused, too, and one whose client has left."
FIRST_ROW = 5
"""Stages above; the others stand below, where the models are."""
WIDTH, HEIGHT, LEFT = 860, 360, 78
BOX, GAP, TALL, ROWS = 108, 16, 74, (56, 196)
INK, SOFT, LINE = "#1d2433", "#4a5468", "#8a93a6"


def picture() -> str:
    """The picture as SVG."""
    from foreword.gateway.stage import ORDER

    places = {name: _place(number) for number, name in enumerate(ORDER)}
    words = "Stages of the path in their order: " + ", ".join(ORDER) + "."
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        f'  <title id="title">{words} The cache may answer, and the check may send a request back for another answer, once.</title>',
        f'  <rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fbfbfd" stroke="#d5d8e0"/>',
        *(line for name, (x, y) in places.items() for line in _box(name, x, y)),
        f'  <g stroke="{INK}" stroke-width="1.5" fill="none">',
        *_arrows(places),
        "  </g>",
        f'  <g stroke="{SOFT}" stroke-width="1.5" fill="none" stroke-dasharray="5 4">',
        *_detours(places),
        "  </g>",
        f'  <g fill="{SOFT}" font-size="13">',
        *_remarks(places),
        "  </g>",
        "</svg>",
    ]
    return "\n".join(drawn) + "\n"


def _place(number: int) -> tuple[int, int]:
    row, column = divmod(number, FIRST_ROW) if number < FIRST_ROW else (1, number - FIRST_ROW)
    return LEFT + column * (BOX + GAP), ROWS[row]


def _box(name: str, x: int, y: int) -> list[str]:
    money = name in ("limit", "budget", "reserve", "bill")
    fill, stroke = ("#fbeecb", "#c8a45a") if money else ("#dff0e4", "#8fb39a") if name == "infer" else ("#e4e8f2", LINE)
    middle = x + BOX // 2
    said = [f'  <text x="{middle}" y="{y + 43 + 17 * number}" font-size="13">{line}</text>' for number, line in enumerate(SAYS[name])]
    return [
        f'  <rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="5" fill="{fill}" stroke="{stroke}"/>',
        f'  <g fill="{INK}" text-anchor="middle">',
        f'    <text x="{middle}" y="{y + 22}" font-weight="bold">{name}</text>',
        *(f"  {line}" for line in said),
        "  </g>",
    ]


def _arrows(places: dict[str, tuple[int, int]]) -> list[str]:
    """From each stage to the next one, into the first and out of the last."""
    lines = []
    for name, (x, y) in places.items():
        begins = 8 if name == next(iter(places)) else x - GAP
        if x > LEFT or begins == 8:
            lines.append(f'    <path d="M{begins} {y + TALL // 2}H{x - 2}m-5-4 5 4-5 4"/>')
    last_x, last_y = places[[*places][FIRST_ROW - 1]]
    next_x, next_y = places[[*places][FIRST_ROW]]
    turn = (last_y + TALL + next_y) // 2 - 8
    lines.append(
        f'    <path d="M{last_x + BOX // 3} {last_y + TALL}V{turn}H{next_x - 34}V{next_y + TALL // 2}H{next_x - 2}m-5-4 5 4-5 4"/>'
    )
    end_x, end_y = places[[*places][-1]]
    lines.append(f'    <path d="M{end_x + BOX // 2} {end_y}V{ROWS[0] + TALL // 2}h24m-5-4 5 4-5 4"/>')
    return lines


def _detours(places: dict[str, tuple[int, int]]) -> list[str]:
    cache_x, cache_y = places["cache"]
    check_x, check_y = places["check"]
    infer_x, infer_y = places["infer"]
    below = infer_y + TALL
    return [
        f'    <path d="M{cache_x + 2 * BOX // 3} {cache_y + TALL}V{check_y - 22}H{check_x + BOX // 2}V{check_y - 2}m-4-5 4 5 4-5"/>',
        f'    <path d="M{check_x + BOX // 2} {below}v28H{infer_x + BOX // 2}V{below + 2}m-4 5 4-5 4 5"/>',
    ]


def _remarks(places: dict[str, tuple[int, int]]) -> list[str]:
    cache_x, cache_y = places["cache"]
    infer_x, infer_y = places["infer"]
    check_x, _ = places["check"]
    end_x, _ = places[[*places][-1]]
    below, again = infer_y + TALL, (infer_x + check_x + BOX) // 2
    return [
        '    <text x="8" y="84">request</text>',
        f'    <text x="{cache_x + 2 * BOX // 3 + 8}" y="{cache_y + TALL + 20}">it is</text>',
        f'    <text x="{cache_x - 14}" y="{cache_y + TALL + 20}" text-anchor="end">it is not</text>',
        f'    <text x="{again}" y="{below + 46}" text-anchor="middle">it is not: once more, from the next tier</text>',
        f'    <text x="{end_x + BOX // 2 + 30}" y="{ROWS[0] + TALL // 2 + 4}">answer</text>',
        f'    <text x="{LEFT}" y="{HEIGHT - 22}">{ALWAYS}</text>',
    ]


def main() -> None:
    """Writes the picture."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
