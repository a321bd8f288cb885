"""The Trainer and its parts."""

from hf_robustvit.trainer.trainer import RobustViTTrainer
