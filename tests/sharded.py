"""Gradients of a model that FSDP2 has sharded over processes, against those of a whole one; run by torchrun."""

import os

import torch
from golden_numbers import relative_error
from tiny_models import tiny_model
from tiny_pairs import collate, pairs
from torch.distributed.fsdp import fully_shard

from hf_robustvit.losses import RobustViTLoss


def compare(attention: str) -> None:
    """Each process takes its share of the images; the gradients' mean times their number is the whole batch's."""
    batch, loss = collate(pairs(6)), RobustViTLoss()
    whole, sharded = (tiny_model("vit", num_hidden_layers=3).train() for _ in range(2))
    for model in (whole, sharded):
        model.set_attn_implementation(attention)
    loss(whole, batch["pixel_values"], batch["masks"], batch["labels"]).loss.backward()

    for layer in sharded.vit.layers:
        fully_shard(layer)
    fully_shard(sharded)
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    share = (batch[name].chunk(size)[rank] for name in ("pixel_values", "masks", "labels"))
    (size * loss(sharded, *share, num_images=6).loss).backward()
    for (name, wanted), found in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        if not name.endswith("k_proj.bias"):  # its true gradient is zero
            error = relative_error(found.grad.full_tensor(), wanted.grad)
            assert error < 1e-5, f"{attention}: {name} {error}"


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    for attention in ("eager", "lean"):
        compare(attention)
    torch.distributed.barrier()  # a process that leaves while the other still computes makes that one abort
    os._exit(0)  # on a busy machine, threads of torch's abort a process that ends in the usual way
