"""Which rows of a whole relevance matrix the class score is read from, told apart from `relevance.read_out`."""

import contextlib

import torch

from hf_robustvit.models.families import backbone_of, head_reads
from hf_robustvit.models.patches import patch_layout


@contextlib.contextmanager
def pooling_maps(model):
    """A context whose forward passes add the map of SigLIP's pooling, (batch, heads, 1, tokens), to a list."""
    maps = []
    if head_reads(model) != "attention pooling":
        yield maps
        return
    pooling = backbone_of(model).head.attention

    def forward(*inputs):
        weights, biases = pooling.in_proj_weight.chunk(3), pooling.in_proj_bias.chunk(3)
        projected = [each @ weight.T + bias for each, weight, bias in zip(inputs, weights, biases, strict=True)]
        query, key, value = (torch.stack(each.chunk(pooling.num_heads, dim=2), dim=1) for each in projected)
        maps.append((query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1))
        return pooling.out_proj(torch.cat((maps[-1] @ value).unbind(dim=1), dim=2)), None

    pooling.forward = forward
    yield maps
    del pooling.forward


def read_rows(model, relevance, target, pooling=None):
    """The rows of R that the class score is read from, image by image, with the weights of the halves in the head.

    `pooling` holds the weights of the rows, (batch, tokens), where an attention pools them.
    """
    if pooling is not None:
        return torch.stack([row @ matrix for row, matrix in zip(pooling, relevance, strict=True)])
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
