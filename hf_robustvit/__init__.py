"""Fine-tune Vision Transformer classifiers by their relevance maps (Chefer, Schwartz and Wolf, NeurIPS 2022)."""
