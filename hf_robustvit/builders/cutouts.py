"""Cutouts, the embedded benchmark, as a `datasets` builder: one configuration for each split, nothing to download."""

from collections.abc import Iterator

import datasets

from hf_robustvit.cutouts import BENCHMARK_SPLITS, CLASS_NAMES, SPLITS, VERSION, render


#: What the Hub calls it.
HUB_ID = "hf-robustvit/cutouts"
SHARD_SIZE = 100
CONFIG_NAMES = (*BENCHMARK_SPLITS, "train")


class Cutouts(datasets.GeneratorBasedBuilder):
    """Renders one split of Cutouts.

    The configurations are the benchmark's splits and `train`, the strongly biased images to fine-tune on. Rows:
    `image` (RGB, 64x64), `mask` (8-bit grey, the object's alpha channel), `label`, `image_id`, `object`, `style`,
    `scene`, and the factors of SI-Score: `area` (share of the image that the object's bounding square
    covers before rotation), `rotation` (degrees), `location` (centre of the object, x and y as shares of the image).
    """

    VERSION = datasets.Version(VERSION)
    BUILDER_CONFIGS = [datasets.BuilderConfig(name=name, version=datasets.Version(VERSION)) for name in CONFIG_NAMES]
    DEFAULT_CONFIG_NAME = "val"

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Objects pasted on scenes, with exact masks.",
            features=datasets.Features(
                {
                    "image": datasets.Image(),
                    "mask": datasets.Image(),
                    "label": datasets.ClassLabel(names=list(CLASS_NAMES)),
                    "image_id": datasets.Value("string"),
                    "object": datasets.Value("string"),
                    "style": datasets.Value("string"),
                    "scene": datasets.Value("string"),
                    "area": datasets.Value("float32"),
                    "rotation": datasets.Value("int32"),
                    "location": datasets.List(datasets.Value("float32"), length=2),
                }
            ),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        split = datasets.Split.TRAIN if self.config.name == "train" else datasets.Split.TEST
        starts = list(range(0, SPLITS[self.config.name].num_images, SHARD_SIZE))
        return [datasets.SplitGenerator(split, gen_kwargs={"starts": starts})]

    def _generate_examples(self, starts: list[int]) -> Iterator[tuple[str, dict]]:
        name = self.config.name
        for start in starts:
            for index in range(start, min(start + SHARD_SIZE, SPLITS[name].num_images)):
                rendered = render(name, index)
                image_id = f"{name}/{index:05d}"
                yield (
                    image_id,
                    {
                        "image": rendered.image,
                        "mask": rendered.mask,
                        "label": rendered.label,
                        "image_id": image_id,
                        "object": rendered.object,
                        "style": rendered.style,
                        "scene": rendered.scene,
                        "area": rendered.area,
                        "rotation": rendered.rotation,
                        "location": rendered.location,
                    },
                )
