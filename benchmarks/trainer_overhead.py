"""What the Trainer adds to a training step: `python -m benchmarks.trainer_overhead`.

The Trainer's step (reading the batch, lean RobustViT loss, backward pass, AdamW, logging at every step) and the same
step in a bare loop take turns, on two models with the same weights and batches.
"""

import argparse
import copy
import statistics
import tempfile
import time

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from benchmarks.common import DEVICE, SIZES, machine, make_batch, make_model, model_name, write_section
from hf_robustvit import RobustViTConfig, RobustViTTrainer
from hf_robustvit.data import collate_pairs
from hf_robustvit.trainer.trainer import make_loss


def now() -> float:
    """Seconds: of the process on a CPU, which others on the machine disturb little; of the clock beside a GPU."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class BareLoop(TrainerCallback):
    """Takes a bare step after each of the Trainer's, and times both.

    Attributes:
        times: (the Trainer's step, the bare step) in seconds, in turn.
    """

    def __init__(self, model, loss, loader: DataLoader, learning_rate: float, weight_decay: float):
        self.model, self.loss, self.batches = model, loss, iter(loader)
        self.optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True)
        self.times: list[tuple[float, float]] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.begin = now()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        middle = now()
        self._step()
        end = now()
        self.times.append((middle - self.begin, end - middle))
        self.begin = now()

    def _step(self) -> None:
        batch = next(self.batches)
        pixel_values, masks, labels = (batch[name].to(DEVICE) for name in ("pixel_values", "masks", "labels"))
        self.loss(self.model, pixel_values, masks, labels).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def time_both(size: str, batch_size: int, rounds: int) -> list[tuple[float, float]]:
    """(the Trainer's step, the bare step) in seconds of each round; one more before them is not counted."""
    images, masks, labels = (tensor.cpu() for tensor in make_batch(batch_size * (1 + rounds)))
    rows = [
        {"pixel_values": image, "mask": mask, "label": int(label), "image_id": str(number)}
        for number, (image, mask, label) in enumerate(zip(images, masks, labels, strict=True))
    ]
    model = make_model(size)
    model.set_attn_implementation("lean")
    with tempfile.TemporaryDirectory() as folder:
        config = RobustViTConfig(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            logging_strategy="steps",
            logging_steps=1,
            disable_tqdm=True,
        )
        bare = copy.deepcopy(model)
        trainer = RobustViTTrainer(model, config, train_dataset=rows, data_collator=collate_pairs)
        loader = DataLoader(rows, batch_size, shuffle=True, collate_fn=collate_pairs)
        loop = BareLoop(bare, make_loss(config), loader, config.learning_rate, config.weight_decay)
        trainer.add_callback(loop)
        trainer.train()
    return loop.times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    times = time_both(arguments.size, arguments.batch_size, arguments.rounds)
    inside, bare = (statistics.median(column) for column in zip(*times, strict=True))
    lines = [
        f"{model_name(arguments.size)} at 224, batch {arguments.batch_size}, lean, with AdamW's step, medians of "
        f"{arguments.rounds} interleaved rounds. {machine()}",
        "",
        "| step | seconds |",
        "|---|---|",
        f"| in RobustViTTrainer | {inside:.3f} |",
        f"| in a bare loop | {bare:.3f} |",
        "",
        "| ratio | measured | wanted |",
        "|---|---|---|",
        f"| in RobustViTTrainer / in a bare loop | {inside / bare:.3f} | at most 1.05 |",
    ]
    write_section(f"The Trainer's share of a step ({model_name(arguments.size)})", lines)


if __name__ == "__main__":
    main()
