"""A tokenizer of single letters for tiny CLIP-type models, and what their text towers' configurations say of it."""

import string

from transformers import CLIPTokenizer


def tiny_tokenizer() -> CLIPTokenizer:
    letters = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase + string.digits + ".,-"]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])


_tokenizer = tiny_tokenizer()
TEXT = {f"{name}_token_id": getattr(_tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
TEXT |= {"vocab_size": len(_tokenizer), "max_position_embeddings": 40}
