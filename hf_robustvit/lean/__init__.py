"""What makes a training step small: attention without maps, and activations that are computed again."""
