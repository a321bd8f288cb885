"""Models for images of another size, against transformers' own interpolation in the forward pass."""

import pytest
import torch
from tiny_models import FAMILIES, tiny_model
from transformers import ViTImageProcessorPil

from hf_robustvit import load_classifier
from hf_robustvit.errors import UserError
from hf_robustvit.models.families import family_of, image_config


PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 32})


def saved(folder, model, processor=PROCESSOR):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_interpolation_in_every_pass_computes_and_is_saved_as_a_plain_checkpoint(tmp_path, family):
    own = {"use_relative_position_bias": False, "use_absolute_position_embeddings": True} if family == "beit" else {}
    original = tiny_model(family, **own)
    pixel_values = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    wanted = original(pixel_values, **family_of(original.config).resizing_arguments).logits
    model, processor = load_classifier(saved(tmp_path / "small", original), image_size=48)
    torch.testing.assert_close(model(pixel_values).logits, wanted, rtol=1e-5, atol=1e-5)
    assert (processor.size.height, processor.size.width) == (48, 48)

    again, _ = load_classifier(saved(tmp_path / "large", model, processor))
    assert image_config(again.config).image_size == 48
    torch.testing.assert_close(again(pixel_values).logits, wanted, rtol=1e-5, atol=1e-5)


def test_the_centre_crop_keeps_its_share_of_the_image(tmp_path):
    cropping = ViTImageProcessorPil(
        size={"shortest_edge": 40}, do_center_crop=True, crop_size={"height": 32, "width": 32}, image_mean=[0.1] * 3
    )
    _, processor = load_classifier(saved(tmp_path, tiny_model("vit"), cropping), image_size=48)
    assert (processor.size.shortest_edge, processor.crop_size.height, processor.crop_size.width) == (60, 48, 48)
    assert list(processor.image_mean) == [0.1] * 3


def test_sizes_and_models_that_do_not_fit_are_refused(tmp_path):
    folder = saved(tmp_path / "fixed", tiny_model("vit"), ViTImageProcessorPil(do_resize=False))
    with pytest.raises(UserError, match="does not resize"):
        load_classifier(folder, image_size=48)
    folder = saved(tmp_path / "usual", tiny_model("vit"))
    for size in (0, 50):
        with pytest.raises(UserError, match=f"--input_size is {size}: give a multiple of the model's patch size, 8x8"):
            load_classifier(folder, image_size=size)
    folder = saved(tmp_path / "beit", tiny_model("beit"))
    with pytest.raises(UserError, match="type beit has no position embeddings that could be interpolated"):
        load_classifier(folder, image_size=48)
    folder = saved(tmp_path / "wide", tiny_model("vit", image_size=(32, 64)), ViTImageProcessorPil(size=(32, 64)))
    with pytest.raises(UserError, match="for square images and patches alone, which this model's are not"):
        load_classifier(folder, image_size=64)
