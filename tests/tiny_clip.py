"""Tiny random CLIP-type checkpoints, saved as they are on the Hub: by transformers' own classes, without classes."""

from pathlib import Path

import transformers
from tiny_models import tiny_model
from tiny_tokenizer import tiny_tokenizer
from transformers import CLIPImageProcessorPil


MODELS = {
    "clip": transformers.CLIPModel,
    "metaclip_2": transformers.MetaClip2Model,
    "siglip": transformers.SiglipModel,
}


def save_clip(folder: Path, family: str = "clip", **settings) -> Path:
    """A folder with model, tokenizer and image processor; `settings` are those of `tiny_model`."""
    classifier = tiny_model(f"{family}_zero_shot", **settings)
    for attribute in ("prompt_template", "id2label", "label2id"):
        delattr(classifier.config, attribute)
    model = MODELS[family](classifier.config)
    model.load_state_dict(classifier.state_dict())
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    size = classifier.config.vision_config.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    processor.save_pretrained(folder)
    return folder
