"""What a data set holds, as a digest that depends neither on where its files lie nor on when it was prepared."""

import hashlib
import json
import os
from typing import Any

import datasets
import pyarrow.compute as pc


def content_digest(rows: datasets.Dataset) -> str:
    """A digest of rows that is the same on every machine, and another where any row or picture is another.

    The fingerprint of `datasets` changes with the time at which a cache was written, so that finished work would be
    done again after a cache was emptied, and by each machine that shares a folder of results.

    Args:
        rows: Files, pictures embedded or named by an absolute path, count by their sizes, so that a million of them
            are compared in seconds; everything else by its value, and the builder by its version.

    Returns:
        16 hexadecimal digits.
    """
    names = sorted(rows.column_names)
    digest = hashlib.sha256(json.dumps([str(rows.info.version), names]).encode())
    for batch in rows.with_format("arrow").iter(1000):
        for name in names:
            if isinstance(rows.features[name], datasets.Image):
                # The lengths alone: the bytes of a whole data set need not be read.
                lengths = pc.binary_length(pc.struct_field(batch[name], "bytes")).to_pylist()
                paths = pc.struct_field(batch[name], "path").to_pylist()
                values = [
                    _without_place(path) if length is None else length
                    for length, path in zip(lengths, paths, strict=True)
                ]
            else:
                values = [_without_place(value) for value in batch[name].to_pylist()]
            digest.update(json.dumps(values, default=str).encode())
    return digest.hexdigest()[:16]


def _without_place(value: Any) -> Any:
    """A value of a row; of a file its size in bytes, None where it does not exist."""
    if isinstance(value, str) and os.path.isabs(value):
        return os.path.getsize(value) if os.path.isfile(value) else None
    return value
