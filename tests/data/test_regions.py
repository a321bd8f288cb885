"""Components of masks, compared by all their pixels or by those that count."""

import numpy as np

from hf_robustvit.data.regions import largest_component


def test_the_component_with_most_of_what_counts_is_taken():
    mask = np.array([[1, 1, 1, 0, 1], [0, 0, 0, 0, 1]], dtype=bool)
    assert np.array_equal(largest_component(mask), mask & (np.arange(5) < 3))
    assert np.array_equal(largest_component(mask, counted=mask & (np.arange(5) > 3)), mask & (np.arange(5) > 3))
    assert not largest_component(np.zeros((2, 3), dtype=bool)).any()
