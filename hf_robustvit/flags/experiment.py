"""Which experiments are made, on what."""

import os
from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from hf_robustvit.errors import unknown_name
from hf_robustvit.flags.masks import MADE_MASKS


# Of `experiments.catalogue`.
EXPERIMENTS = (
    *("table1", "table2", "table3", "table4", "controls", "masks", "seeds", "classes", "frontier", "recipe"),
    *("maps", "sensitivity", "lr-search", "per-class", "examples", "sis", "oracle"),
)


@dataclass
class ExperimentArguments:
    """Which experiments, on what."""

    names: list[str] = HfArg(help=f"all, or some of: {', '.join(EXPERIMENTS)}. Written first, they need no --names.")
    suite: str = HfArg(
        default="imagenet",
        help="imagenet as in the paper; cutouts, which needs no data and no GPU; or a folder of your own that holds "
        "train and test (images and masks by class) and perhaps backgrounds.",
    )
    quick: bool = HfArg(default=False, help="With --suite cutouts: few images, done in minutes.")
    models: list[str] | None = HfArg(default=None, help="The paper's short names (ViT-B, AR-S, ...), or other models.")
    learning_rate: float | None = HfArg(
        default=None, help="With a folder: of all runs, as lr-search finds it; the paper's if left out."
    )
    development: bool = HfArg(
        default=False, help="With a folder: score on its development photos instead of its test photos."
    )
    output_dir: str = HfArg(default="outputs/experiments", help="OUT; may be shared by machines.")
    data_dir: str | None = HfArg(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        help="Folder that holds the data sets. Default: $HF_ROBUSTVIT_DATA.",
    )
    images_dir: str | None = HfArg(default=None, help="ImageNet's train folder, for --suite imagenet.")
    mask_sources: list[str] = HfArg(
        default_factory=lambda: ["tokencut"],
        help=f"What makes masks in the experiment on masks: some of {', '.join(MADE_MASKS)}, whose flags are those of "
        "`hf-robustvit masks`.",
    )
    processes: int = HfArg(default=1, help="Processes that share the runs on this machine.")
    print_jobs: bool = HfArg(
        default=False, help="Print one command for each run, for a scheduler, and make nothing. Same OUT, any order."
    )
    run: int | None = HfArg(default=None, help="Make one run only; what --print_jobs prints.")
    helper: bool = HfArg(default=False, help="Make runs only; what --processes starts.")

    def chosen(self) -> list[str]:
        """The names of the experiments.

        Raises:
            UserError: There is no experiment of a name.
        """
        names = list(EXPERIMENTS) if self.names == ["all"] else self.names
        for name in names:
            if name not in EXPERIMENTS:
                raise unknown_name("experiment", name, ["all", *EXPERIMENTS])
        return names
