"""CLIP-type models as classifiers: the head is the text features of class names, and frozen."""

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import transformers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.modeling_outputs import ImageClassifierOutput

from hf_robustvit.errors import UserError


# The template of the paper (Radford et al., 2021, Sec. 3.1.4).
PROMPT_TEMPLATE = "a photo of a {}."
_READ = ("input_ids", "attention_mask")
# How many prompts pass through the text tower at a time.
_PROMPTS_AT_A_TIME = 128


class ZeroShotHead:
    """Makes a classifier of a model with an image and a text tower.

    The score of a class is exp(`logit_scale`) times the cosine between the image's features (the CLS token of the last
    layer, normalised and projected; SigLIP's are pooled from the patches, and it adds a bias) and those of the class's
    prompt. The text tower computes the latter once, and is then frozen with its projection, scale and bias, so that a
    fine-tuned model's text tower is the original's.

    `set_classes` must be called before the first forward pass. Class names and template are kept in config.json, as
    `id2label` and `prompt_template`, and `save_pretrained` writes the tokenizer too.
    """

    main_input_name = "pixel_values"
    padding = "longest"  # of prompts, as the text tower was trained

    def set_classes(
        self, class_names: Sequence[str], prompt_template: str, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Make the head.

        Args:
            class_names: One for each class; underscores become spaces in the prompt.
            prompt_template: The prompt, with {} for the class name.
            tokenizer: The text tower's.

        Raises:
            UserError: There are no classes, or the template has no place for their names.
        """
        if not class_names:
            raise UserError("class_names: there are none; give one name for each class.")
        if prompt_template.count("{}") != 1 or prompt_template.count("{") + prompt_template.count("}") != 2:
            raise UserError(
                f"--prompt_template is {prompt_template!r}: put {{}} where the class name belongs, once, and no other "
                "braces."
            )
        prompts = [prompt_template.format(name.replace("_", " ")) for name in class_names]
        longest = self.config.text_config.max_position_embeddings
        features = []
        with torch.no_grad():
            for first in range(0, len(prompts), _PROMPTS_AT_A_TIME):
                some = prompts[first : first + _PROMPTS_AT_A_TIME]
                tokens = tokenizer(
                    some, padding=self.padding, truncation=True, max_length=longest, return_tensors="pt"
                )
                # SigLIP's tokenizers give no mask.
                inputs = {name: tokens[name].to(self.device) for name in _READ if name in tokens}
                features.append(F.normalize(self.get_text_features(**inputs).pooler_output, dim=-1))
        self.register_buffer("text_features", torch.cat(features), persistent=False)  # (classes, projection)
        self.config.id2label = dict(enumerate(class_names))
        self.config.label2id = {name: index for index, name in enumerate(class_names)}
        self.config.prompt_template = prompt_template
        self.tokenizer = tokenizer
        for name in ("text_model", "text_projection", "logit_scale", "logit_bias"):
            if hasattr(self, name):
                getattr(self, name).requires_grad_(False)

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ImageClassifierOutput:
        """The logits, (batch, classes), of images (batch, 3, height, width); `kwargs` are the image tower's."""
        outputs = self.vision_model(pixel_values=pixel_values, **kwargs)
        features = outputs.pooler_output
        if hasattr(self, "visual_projection"):
            features = self.visual_projection(features)
        features = F.normalize(features, dim=-1)  # (batch, projection)
        logits = self.logit_scale.exp() * features @ self.text_features.T.to(features.dtype)
        logits = logits + getattr(self, "logit_bias", 0)
        return ImageClassifierOutput(logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs) -> None:
        """Save the model as transformers' own class does, with the tokenizer beside it."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self.tokenizer.save_pretrained(save_directory)


# Called as transformers' classes are: `save_pretrained` writes the class's name into config.json, and what is saved is
# a plain CLIPModel.
class CLIPModel(ZeroShotHead, transformers.CLIPModel):
    """transformers' CLIPModel that classifies images."""


class MetaClip2Model(ZeroShotHead, transformers.MetaClip2Model):
    """transformers' MetaClip2Model that classifies images."""


class SiglipModel(ZeroShotHead, transformers.SiglipModel):
    """transformers' SiglipModel that classifies images."""

    padding = "max_length"


def saved_class_names(config: PreTrainedConfig) -> list[str] | None:
    """The class names that a CLIP-type model was saved with by this package; None if it was not."""
    if not hasattr(config, "prompt_template"):  # transformers gives every configuration some labels
        return None
    return [config.id2label[index] for index in range(len(config.id2label))]
