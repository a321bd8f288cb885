"""Mistakes told in one sentence."""

import pytest
from torch.utils.data import DataLoader

from hf_robustvit.errors import LONGEST, UserError, first_line, unknown_name


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


def test_what_a_message_quotes_is_put_on_one_line():
    assert str(UserError("a.csv holds 'two\n  lines\u2028here': repair it.\n")) == (
        "a.csv holds 'two lines here': repair it."
    )


def test_a_long_message_keeps_its_file_and_what_to_do():
    message = str(UserError(f"a.csv names {'x' * 5000}: repair it."))
    assert message.startswith("a.csv names xxx") and message.endswith("xxx: repair it.")
    assert len(message) == LONGEST + len(" ... ")


class Unreadable:
    """A data set whose rows cannot be read."""

    def __len__(self):
        return 1

    def __getitem__(self, row):
        raise UserError(f"image {row} is broken: replace it.")


def test_a_message_comes_out_of_a_worker_without_its_trace():
    with pytest.raises(UserError) as caught:
        next(iter(DataLoader(Unreadable(), num_workers=1)))
    assert str(caught.value) == "image 0 is broken: replace it."


def test_the_first_line_of_what_a_library_says():
    assert first_line(ValueError("\nno such key:\n  in line 3")) == "no such key"
    assert first_line(AssertionError()) == "AssertionError"
