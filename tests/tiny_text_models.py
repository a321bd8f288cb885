"""Detectors, segmenters and CLIPSeg of the real classes, with random weights, small enough to run in milliseconds."""

import json
from functools import partial
from pathlib import Path
from string import ascii_lowercase

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    MMGroundingDinoForObjectDetection,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    OwlViTForObjectDetection,
    OwlViTImageProcessorPil,
    OwlViTProcessor,
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
    SwinConfig,
    ViTImageProcessorPil,
)


# Where Grounding DINO's code expects BERT's special tokens.
_BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
_CLIP = [*ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase), "<|startoftext|>", "<|endoftext|>"]
_CLIP_TEXT = {
    "vocab_size": len(_CLIP),
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "bos_token_id": len(_CLIP) - 2,
    "eos_token_id": len(_CLIP) - 1,
    "pad_token_id": len(_CLIP) - 1,
}
# As SAM 2's are stored on the Hub: by a class that needs torchvision, which a machine may not have.
_SAM2_IMAGES = {
    "image_processor_type": "Sam2ImageProcessorFast",
    "processor_class": "Sam2VideoProcessor",
    "size": {"height": 64, "width": 64},
    "mask_size": {"height": 16, "width": 16},
    "resample": 2,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
    "default_to_square": True,
    "crop_size": None,
    "data_format": "channels_first",
    "device": None,
}
_CLIP_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def save_text_model(kind: str, folder: Path) -> Path:
    """A model of this model_type with its processor, as from_pretrained reads them."""
    torch.manual_seed(0)
    {
        "grounding-dino": partial(_grounding_dino, GroundingDinoForObjectDetection),
        "mm-grounding-dino": partial(_grounding_dino, MMGroundingDinoForObjectDetection),
        "owlv2": partial(_owl, Owlv2ForObjectDetection, Owlv2Processor, Owlv2ImageProcessorPil),
        "owlvit": partial(_owl, OwlViTForObjectDetection, OwlViTProcessor, OwlViTImageProcessorPil),
        "clipseg": _clipseg,
        "sam": _sam,
        "sam2": _sam2,
    }[kind](folder)
    return folder


def _save(folder: Path, model: PreTrainedModel, processor) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _bert_tokenizer() -> BertTokenizer:
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    taken = {position: token for token, position in _BERT.items()} | dict(enumerate(letters, start=1))
    return BertTokenizer(vocab={taken.get(position, f"[unused{position}]"): position for position in range(1030)})


def _clip_tokenizer(longest: int) -> CLIPTokenizer:
    vocab = {token: position for position, token in enumerate(_CLIP)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=longest)


def _grounding_dino(model_class: type, folder: Path) -> None:
    swin = SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    bert = BertConfig(
        vocab_size=1030,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = model_class.config_class(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=8,
        encoder_n_points=1,
        decoder_n_points=1,
        max_text_len=32,
        **sizes,
    )
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 128})
    _save(folder, model_class(config), GroundingDinoProcessor(images, _bert_tokenizer()))


def _owl(model_class: type, processor_class: type, images_class: type, folder: Path) -> None:
    text = _CLIP_TEXT | {"max_position_embeddings": 16}
    config = model_class.config_class(text_config=text, vision_config=_CLIP_VISION, projection_dim=16)
    images = images_class(size={"height": 32, "width": 32})
    _save(folder, model_class(config), processor_class(images, _clip_tokenizer(16)))


def _clipseg(folder: Path) -> None:
    config = CLIPSegConfig(
        text_config=_CLIP_TEXT | {"max_position_embeddings": 77},
        vision_config=_CLIP_VISION,
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    images = ViTImageProcessorPil(size={"height": 32, "width": 32})
    _save(folder, CLIPSegForImageSegmentation(config), CLIPSegProcessor(images, _clip_tokenizer(77)))


def _sam(folder: Path) -> None:
    vision = {
        "hidden_size": 16,
        "output_channels": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "window_size": 2,
        "global_attn_indexes": [0],
        "num_pos_feats": 4,
        "mlp_dim": 16,
    }
    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 8, "image_size": 32, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config=_mask_decoder(8),
    )
    square = {"height": 32, "width": 32}
    _save(folder, SamModel(config), SamProcessor(SamImageProcessorPil(size={"longest_edge": 32}, pad_size=square)))


def _sam2(folder: Path) -> None:
    hiera = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 1, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 4, 4, 4],
        "window_positional_embedding_background_size": [2, 2],
        "global_attention_blocks": [],
    }
    vision = {
        "backbone_config": hiera,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    }
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config=_mask_decoder(16),
    )
    Sam2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_SAM2_IMAGES))


def _mask_decoder(width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": width,
    }
