"""The paper's tables and figures: which runs they need, making each run once, and showing what came out."""
