"""Names for requests: all different, and fit for headers and file names."""

import re

from foreword.gateway import ids


def test_names_are_different_and_of_one_form():
    names = {ids.fresh() for _ in range(10_000)}
    assert len(names) == 10_000
    assert all(re.fullmatch("[0-9a-f]{24}", name) for name in names)
