"""The report goes to JSON whole."""

from __future__ import annotations

import json

from foreword.data.checking import check
from foreword.data.reading import from_rows


def test_as_dict_has_every_field_and_only_json_values():
    rows = [{"text": f"row number {index}", "label": "x"} for index in range(4)]
    report = check(from_rows(rows), from_rows(rows[:1]), count_tokens=len, window=3)
    values = json.loads(json.dumps(report.as_dict()))
    assert set(values) == {"train", "dev", "leaks", "window", "warnings"}
    assert values["dev"]["too_long"] == [{"line": 1, "tokens": 13}]
    assert values["leaks"] == [{"dev_line": 1, "train_line": 1, "similarity": 1.0, "exact": True, "excerpt": "row number 0"}]
    assert values["warnings"][0].keys() == {"code", "message", "advice"}
