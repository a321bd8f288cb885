"""Mistakes told in one sentence."""

import pytest

from hf_robustvit.errors import unknown_name


@pytest.mark.parametrize(
    ("name", "count", "hint"),
    [
        ("name-7x", 1000, "Did you mean name-7"),
        ("-99", 1000, "Did you mean name-99 or"),
        ("zzz", 2, "Known names: name-0, name-1."),
        ("zzz", 1000, "Known names: name-0, name-1, name-2, name-3, name-4 and 995 others."),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_ones_or_a_few(name, count, hint):
    message = str(unknown_name("--colour", name, [f"name-{number}" for number in range(count)]))
    assert message.startswith(f"--colour: there is no '{name}'. {hint}")
    assert len(message) < 120
