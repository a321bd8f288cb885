"""Small operations on binary masks."""

import numpy as np
from scipy import ndimage


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected component (4 neighbours) of a bool mask (H, W), the first of equals; empty if it is."""
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    return components == np.bincount(components.ravel())[1:].argmax() + 1


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two bool masks of one shape, in [0, 1]; 0 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0
