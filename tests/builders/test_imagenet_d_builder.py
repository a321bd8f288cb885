"""ImageNet-D in its official layout: any of a class's indices counts."""

import pytest
from official_layouts import check_accuracies, plant, save_image
from planted_benchmarks import vit

from hf_robustvit.builders import benchmark_names, load_benchmark
from hf_robustvit.builders.imagenet_d import IMAGENET_D_INDICES
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.imagenet_classes import NAMES


def test_the_classes():
    assert len(IMAGENET_D_INDICES) == 113 and sum(map(len, IMAGENET_D_INDICES.values())) == 125
    several = {folder: indices for folder, indices in IMAGENET_D_INDICES.items() if len(indices) > 1}
    assert [NAMES[index] for index in several["tie"]] == ["bow tie", "Windsor tie"]
    assert [NAMES[index] for index in several["bicycle"]] == ["mountain bike", "bicycle-built-for-two"]
    assert len(several) == 9 and NAMES[IMAGENET_D_INDICES["banana"][0]] == "banana"
    parts = [f"imagenet-d-{part}" for part in ("background", "texture", "material")]
    assert benchmark_names(["imagenet-d"], for_imagenet=True) == parts


def test_accuracies(tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    folders, classes = zip(*IMAGENET_D_INDICES.items(), strict=True)
    truth = plant(
        tmp_path,
        checkpoint,
        classes,
        lambda number, position: tmp_path / "ImageNet-D" / "texture" / folders[position] / f"{number}.png",
    )
    check_accuracies("imagenet-d-texture", tmp_path, checkpoint, truth, list(classes))


def test_an_unknown_folder_is_refused(tmp_path):
    save_image(tmp_path / "ImageNet-D" / "background" / "mug" / "a.png")
    assert len(load_benchmark("imagenet-d-background", str(tmp_path), str(tmp_path / "cache"))) == 1
    save_image(tmp_path / "ImageNet-D" / "background" / "unicorn" / "a.png")
    with pytest.raises(UserError, match=r"imagenet-d-background: 1 of the 2 folders .* \(first: unicorn\)"):
        load_benchmark("imagenet-d-background", str(tmp_path), str(tmp_path / "cache"))
