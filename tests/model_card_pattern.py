"""What a model card looks like, from its first character to its last."""

import re


NUMBER = r"-?[\d.]+(e-\d+)?"
INTERVAL = r"\[\d+\.\d\d, \d+\.\d\d\]"

MODEL_CARD_PATTERN = re.compile(
    rf"""---
base_model: acme/tiny-vit
library_name: transformers
license: apache-2\.0
metrics:
- accuracy
pipeline_tag: image-classification
tags:
- image-classification
- hf_robustvit
- robustness
- relevance-maps
model-index:
- name: bugs
  results:
  - task:
      type: image-classification
      name: Image classification
    dataset:
      name: photos
      type: photos
      split: validation
    metrics:
    - type: accuracy
      value: [\d.]+
      name: Top-1 accuracy over all classes of the model \(%\)
---

# bugs

acme/tiny-vit, fine-tuned so that its own relevance maps lie on the objects \(RobustViT's loss\)\. It was made with .*
\[Optimizing Relevance Maps .*\]\(https://arxiv\.org/abs/2206\.01161\)\.

## What was done

- Base model: \[acme/tiny-vit\]\(https://huggingface\.co/acme/tiny-vit\), revision a{{40}}
- Images: 4 for training and 1 for validation, from photos
- Training classes: 2 \(ant, bee\)
- Held-out classes, which the model was not fine-tuned on: 1 \(cow\)
- Masks: annotated
- Method: `robustvit`

The file names of all training and validation images are in `robustvit\.json`\.

### Hyper-parameters

\| setting +\| value +\|
\| -+ \| -+ \|
(\| `\w+` +\| [\w.\\-]+ +\|
){{15,30}}
## Results

### On the validation images

\| figure +\| +n \| before +\| 95 % interval +\| after +\| 95 % interval +\|
\| -+ \| -+: \| -+ \| -+ \| -+ \| -+ \|
\| accuracy +\| +1 \| {NUMBER} +\| {INTERVAL} +\| {NUMBER} +\| {INTERVAL} +\|
\| relevance in mask +\| +1 \| {NUMBER} +\| – +\| {NUMBER} +\| – +\|
\| loss +\| +1 \| {NUMBER} +\| – +\| {NUMBER} +\| – +\|

These images were not trained on, and the checkpoint with .* was kept\. .*
.* A lower loss is better\.

<!-- hf_robustvit: benchmarks -->
No benchmark has been run on this model yet; `hf-robustvit eval --update_card` adds its results here\.
<!-- hf_robustvit: end of benchmarks -->

## Relevance maps

.*

!\[Relevance maps before and after fine-tuning\]\(relevance\.png\)

## How to use it

```python
from transformers import pipeline

classify = pipeline\("image-classification", model="you/bugs"\)
classify\("photo\.jpg"\)
```

## Limits

(- .*
(  .*
)*){{4}}
## Licence

That of the base model, acme/tiny-vit: apache-2\.0\.

## Citation

```bibtex
@inproceedings\{{chefer2022optimizing,
(  .*
){{4}}\}}
```

## Versions

torch \S+, transformers \S+, datasets \S+, evaluate \S+, accelerate \S+, pillow \S+, numpy \d+\.\d+\.\d+\.
"""
)
