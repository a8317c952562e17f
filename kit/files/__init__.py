"""Weights on disk: plain safetensors, and a sparse file that is really smaller when weights are zero.

| to | call |
|---|---|
| write a file, all or nothing | `write(model, path, sparse=True)` |
| read its tensors | `read(path)` |
| copy them into a model | `load_into(model, path)` |
| have the bytes without a file | `encode(model, sparse=True)`, `decode(data)` |
| know how long they are, without having them all at once | `length(model, sparse=True)` |
| look into the sparse format | `pack(flat)`, `unpack(values, gaps, n)` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.files.container import FORMAT_VERSION, WeightsFileError, decode, encode, length, pack, unpack
from kit.files.disk import load_into, read, write
