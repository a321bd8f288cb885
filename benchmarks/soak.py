"""Whether memory stays flat over a long run: `python -m benchmarks.soak [--model M --data FOLDER]`.

Trains with a validation every so many steps, then explains single images, all with lean attention, and reports the
process's resident memory (as Linux gives it) over time. Memory that goes on growing shows after the first tenth.
"""

import argparse
import itertools
import tempfile

import torch
from transformers import TrainerCallback

from benchmarks.common import machine, write_section
from benchmarks.memory import memory
from hf_robustvit import RobustViTConfig, RobustViTTrainer, explain
from hf_robustvit.builders import load_training_pairs
from hf_robustvit.commands.finetune import FinetuneArguments, fit
from hf_robustvit.data import EvalTransform, TrainTransform, check_pairs, collate_pairs, with_pair_transform


TENTHS = 10


class Log(TrainerCallback):
    """Notes memory after each step.

    Attributes:
        mib: Mean resident memory in each tenth of the steps; single values vary by some percent.
    """

    def __init__(self, what: str, steps: int):
        self.what, self.steps, self.mib, self.noted = what, steps, [], []

    def note(self, step: int) -> None:
        self.noted.append(memory() / 2**20)
        if step * TENTHS // self.steps > len(self.mib):
            self.mib.append(sum(self.noted) / len(self.noted))
            self.noted.clear()
            print(f"{self.what} {step}: {self.mib[-1]:.0f} MiB", flush=True)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.note(state.global_step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cutouts-vit", help="As for run_finetune.py.")
    parser.add_argument("--data", default="cutouts", help="Images and masks, as run_finetune.py's --dataset.")
    parser.add_argument("--train", type=int, default=250, help="Number of training images.")
    parser.add_argument("--validation", type=int, default=64, help="Number of validation images.")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--explained", type=int, default=5000, help="Number of explained images.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    pairs = load_training_pairs(arguments.data, None, None, "annotated", False)
    model, processor, pairs, new_head = fit(FinetuneArguments(arguments.model), pairs, needs_eager=False)
    count = min(len(pairs), 2 * (arguments.train + arguments.validation))  # more than needed: some cannot be used
    pairs = check_pairs(pairs.shuffle(seed=0).select(range(count)), skip=True)
    training = pairs.select(range(arguments.train))
    validation = pairs.select(range(arguments.train, arguments.train + arguments.validation))

    training_log, explain_log = Log("step", arguments.steps), Log("image", arguments.explained)
    with tempfile.TemporaryDirectory() as folder:
        config = RobustViTConfig(
            output_dir=folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            per_device_eval_batch_size=arguments.batch_size,
            eval_strategy="steps",
            eval_steps=max(1, arguments.steps // 20),
            save_strategy="no",
            load_best_model_at_end=False,
            learning_rate=1e-6,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = RobustViTTrainer(
            model,
            config,
            new_head,
            train_dataset=with_pair_transform(training, TrainTransform(processor)),
            eval_dataset=with_pair_transform(validation, EvalTransform(processor)),
            data_collator=collate_pairs,
            callbacks=[training_log],
        )
        trainer.train()
    images = [row["pixel_values"] for row in trainer.eval_dataset]
    for number, image in enumerate(itertools.islice(itertools.cycle(images), arguments.explained), start=1):
        explain(model, image[None].to(model.device))
        explain_log.note(number)

    logs = (training_log, explain_log)
    lines = [
        f"{arguments.model} on {arguments.train} images of {arguments.data}, lean, batch {arguments.batch_size}, a "
        f"validation on {arguments.validation} images every {config.eval_steps:.0f} steps; then {arguments.explained} "
        f"images explained one by one. Resident memory, MiB, the mean in each tenth. {machine()}",
        "",
        f"| share of the run | {arguments.steps} training steps | {arguments.explained} explained images |",
        "|---|---|---|",
        *(
            f"| {tenth / TENTHS:.0%} | {' | '.join(f'{mib:.0f}' for mib in both)} |"
            for tenth, both in enumerate(zip(*(log.mib for log in logs), strict=True), start=1)
        ),
        f"| growth after the first tenth (wanted: under 2 %) | "
        f"{' | '.join(f'{log.mib[-1] / log.mib[0] - 1:+.1%}' for log in logs)} |",
    ]
    write_section("Memory over a long run", lines)


if __name__ == "__main__":
    main()
