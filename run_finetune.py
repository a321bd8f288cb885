"""Fine-tune a Vision Transformer by its relevance maps; `python run_finetune.py --help` lists the settings."""

import logging

from hf_robustvit import RobustViTConfig
from hf_robustvit.builders import load_training_pairs
from hf_robustvit.commands.finetune import FinetuneArguments, finetune
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.masks import OPTIONS, QualityGate
from hf_robustvit.reporting.tables import validation_table


def main() -> None:
    kinds = (FinetuneArguments, RobustViTConfig, QualityGate, MaskReading, *OPTIONS)
    arguments, config, gate, reading, *mask_options = parse_settings(*kinds)
    logging.basicConfig(level=logging.INFO if config.should_log else logging.ERROR, format="%(message)s")
    pairs = load_training_pairs(
        arguments.dataset, arguments.data_dir, arguments.images_dir, arguments.masks, arguments.ignore_unlabelled
    )
    before, after = finetune(arguments, config, pairs, mask_options, gate, reading)
    if config.process_index == 0:
        print(validation_table(before, after))
        print(
            f"\nThe model is in {config.output_dir}, its maps before and after in {config.output_dir}/relevance.png."
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
