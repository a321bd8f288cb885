"""Which rows of a whole relevance matrix the class score is read from, told apart from `relevance.read_out`."""

import torch

from hf_robustvit.models.families import head_reads
from hf_robustvit.models.loading import patch_layout


def read_rows(model, relevance, target):
    """The rows of R that the class score is read from, image by image, with the weights of the halves in the head."""
    reads, prefix = head_reads(model), patch_layout(model.config).num_prefix_tokens
    rows = []
    for matrix, index in zip(relevance, target, strict=True):
        patches = matrix[prefix:]
        if reads == "patches":
            rows.append(patches.mean(0))
        elif reads == "cls and patches":
            of_cls, of_patches = (half.norm() for half in model.classifier.weight[index].detach().chunk(2))
            total = of_cls * matrix[0] + of_patches * patches.sum(0)
            rows.append(total / (of_cls + of_patches * len(patches)))
        else:
            rows.append(matrix[0])
    return torch.stack(rows)
