"""Tiny random CLIP-type checkpoints with a tokenizer of single letters, saved as they are on the Hub."""

import string
from pathlib import Path

import torch
import transformers
from transformers import CLIPImageProcessorPil, CLIPTokenizer


MODELS = {"clip": transformers.CLIPModel, "metaclip_2": transformers.MetaClip2Model}


def tiny_tokenizer() -> CLIPTokenizer:
    letters = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase + string.digits + ".,-"]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])


def tiny_clip(family: str = "clip", image_size: int = 32, num_hidden_layers: int = 2, seed: int = 0, **vision):
    """A CLIPModel or MetaClip2Model with seeded random weights, large enough for scores far apart."""
    tower = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
    tower |= {"initializer_range": 0.2}
    tokenizer = tiny_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**tower, **special, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    vision = {**tower, "image_size": image_size, "patch_size": 8, "num_hidden_layers": num_hidden_layers, **vision}
    model_class = MODELS[family]
    config = model_class.config_class(
        vision_config=vision, text_config={**text, "max_position_embeddings": 40}, projection_dim=16
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save_clip(folder: Path, family: str = "clip", **settings) -> Path:
    """A folder as on the Hub: model, tokenizer and image processor."""
    tiny_clip(family, **settings).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    size = settings.get("image_size", 32)
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(
        folder
    )
    return folder
