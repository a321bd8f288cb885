"""Fine-tune a Vision Transformer by its relevance maps; `python run_finetune.py --help` lists the settings."""

from hf_robustvit.commands.start import COMMANDS, start


def main() -> None:
    """Fine-tune by this process's command line."""
    COMMANDS["finetune"].run(*COMMANDS["finetune"].parse())


if __name__ == "__main__":
    start("finetune")
