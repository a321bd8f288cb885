"""Small operations on masks."""

import numpy as np
from scipy import ndimage


def largest_component(mask: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The largest connected component (4 neighbours) of a mask, the first of equals; empty if it is.

    Args:
        mask: (H, W) bool.
        counted: (H, W) bool, the pixels by whose number components are compared; all of them if left out.

    Returns:
        (H, W) bool.
    """
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel(), None if counted is None else counted.ravel())
    return components == sizes[1:].argmax() + 1


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two bool masks of one shape, in [0, 1]; 0 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0
