"""Random image-mask pairs as the collator gives them, and a trainer on them; several processes run it as a script."""

import sys

import torch
from accelerate import PartialState
from tiny_models import tiny_model

from hf_robustvit.config import RobustViTConfig
from hf_robustvit.trainer.trainer import RobustViTTrainer


def pairs(count: int, seed: int = 0) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "pixel_values": torch.randn(3, 32, 32, generator=generator),
            "masks": (torch.rand(1, 32, 32, generator=generator) > 0.6).float(),
            "labels": torch.tensor(index % 5),
            "image_ids": f"class-{index % 5}/{index}.png",
        }
        for index in range(count)
    ]


def collate(rows: list[dict]) -> dict:
    batch = {name: torch.stack([row[name] for row in rows]) for name in ("pixel_values", "masks", "labels")}
    return batch | {"image_ids": [row["image_ids"] for row in rows]}


def make_trainer(
    output_dir, train=None, validation=None, model=None, record=None, callbacks=None, new_head=False, **settings
):
    settings = {
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "disable_tqdm": True,
        "optim": "adamw_torch",
        **settings,
    }
    return RobustViTTrainer(
        model=model or tiny_model("vit"),
        args=RobustViTConfig(output_dir=str(output_dir), **settings),
        train_dataset=train or pairs(12),
        eval_dataset=validation or pairs(5, seed=1),
        data_collator=collate,
        new_head=new_head,
        record=record,
        callbacks=callbacks,
    )


def train_once(output_dir, method: str, batch_size: int) -> None:
    """One epoch of plain gradient descent; the weights and the logs go to output_dir."""
    trainer = make_trainer(
        output_dir,
        method=method,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=3,
        optim="sgd",
        weight_decay=0,
        num_train_epochs=1,
        seed=3,
    )
    trainer.train()
    trainer.save_model(output_dir)
    trainer.save_state()


if __name__ == "__main__":
    folder, batch, *methods = sys.argv[1:]
    for name in methods:
        train_once(f"{folder}/{name}", name, int(batch))
    PartialState().destroy_process_group()
