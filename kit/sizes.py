"""How big a model is: parameters, non-zero parameters, bytes in memory, bytes of the file really written, FLOPs.

A weight that PyTorch keeps in pieces (masked by torch.nn.utils.prune, parametrised, quantised) counts as what the model
computes with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from kit import files
from kit.inference import is_small, mode, predict, unfused

_sparse = partial(files.encode, sparse=True)


def parameters(model: nn.Module) -> int:
    """Numbers in the parameter tensors, zeros included; a shared tensor counts once."""
    return sum(tensor.numel() for tensor in (*_distinct(model.parameters()), *_packed(model).values()))


@torch.no_grad()
def nonzeros(model: nn.Module) -> int:
    """Numbers in the parameter tensors that are not zero, masks of torch.nn.utils.prune and parametrisations applied.

    Where a parametrisation has other numbers than the weight that it makes, its own count.
    """
    packed = (tensor.dequantize() for tensor in _packed(model).values())
    with mode(model, training=False):
        return sum(int(tensor.count_nonzero()) for tensor in (*_effective(model), *packed))


def dense_bytes(model: nn.Module) -> int:
    """Memory that parameters and buffers take, zeros included; of quantised weights with their scales."""
    packed = (part for tensor in _packed(model).values() for part in _parts(tensor).values())
    tensors = _distinct([*model.parameters(), *model.buffers(), *packed])
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def file_bytes(
    model: nn.Module,
    encode: Callable[[Mapping[str, Tensor]], bytes] = _sparse,
    decode: Callable[[bytes], Mapping[str, Tensor]] = files.decode,
) -> int:
    """Length of the file of the model: of the kit's sparse one (`kit.files`), or of another format's.

    A large model's sparse file is made part by part, each read back (`files.length`), and never held as a whole.

    Raises:
        RuntimeError: what was read back differs (never seen; it would mean a broken format).
    """
    state = _state(model)
    if encode is _sparse and not is_small(model):
        return files.length(state, sparse=True)
    data = encode(state)
    check_back(state, decode(data))
    return len(data)


def check_back(state: Mapping[str, Tensor], back: Mapping[str, Tensor]) -> None:
    """Refuse, by a RuntimeError, what was read back from a file and differs from what was written to it."""
    for name, tensor in state.items():
        if torch.equal(back[name], tensor):  # no copy of either
            continue
        if not torch.equal(torch.nan_to_num(back[name]), torch.nan_to_num(tensor)):
            raise RuntimeError(f"the file written for {name} does not read back equal.")


def flops(model: nn.Module, inputs: Tensor) -> int:
    """Floating-point operations of one forward pass of one sample, two for each multiply-add.

    Counted by `torch.utils.flop_counter`: matrix products and convolutions, whatever the zeros in them; quantised
    layers as others; no bias, normalisation or activation. Of `inputs` [n, ...] the first sample is used.

    Raises:
        ValueError: an operation that nobody can count, such as a quantised LSTM; or as `training.predict`.
    """
    counter, seen = FlopCounterMode(display=False, custom_mapping=_formulas()), _Seen()
    with unfused(), counter, seen:  # the counter does not look inside fused attention
        predict(model, inputs[:1])
    if unknown := sorted(
        {str(op) for op in seen.operations if _PRODUCT.search(str(op))} - set(map(str, counter.flop_registry))
    ):
        raise ValueError(f"model: its FLOPs are not known, since {', '.join(unknown)} cannot be counted.")
    return counter.get_total_flops()


# Names of operations that multiply matrices: what is not in the counter's list would silently be free.
_PRODUCT = re.compile(
    r"(mm|mv|dot|bilinear|trilinear|linear|conv\dd|convolution|lstm|gru|rnn|attention|layer_fwd)(_|$)"
)


class _Seen(TorchDispatchMode):
    """Notes each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def _formulas() -> dict[Any, Any]:
    """FLOPs of operations that torch's counter does not know, from the shapes of their arguments."""

    def product(matrix: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(matrix)

    def added(_: Any, matrix: Any, *__: Any, **___: Any) -> int:
        return 2 * math.prod(matrix)

    def recurrent(inputs: Any, by_input: Any, by_state: Any, *_: Any, **__: Any) -> int:
        steps = math.prod(inputs[:2])  # of time, times samples
        return 2 * steps * (math.prod(by_input) + math.prod(by_state))

    def packed(_: Any, weight: Any, *__: Any, out_shape: Any, **___: Any) -> int:
        return 2 * math.prod(out_shape) * weight.unpack()[0][0].numel()

    aten, quantised = torch.ops.aten, torch.ops.quantized
    kinds = [f"linear{relu}{kind}" for relu in ("", "_relu") for kind in ("", "_dynamic", "_dynamic_fp16")]
    kinds += [f"conv{n}d{kind}" for n in (1, 2, 3) for kind in ("", "_relu", "_dynamic")]
    return {
        **{aten.mv: product, aten.dot: product, aten.addmv: added, aten.mkldnn_rnn_layer: recurrent},
        **{getattr(quantised, kind): packed for kind in kinds if hasattr(quantised, kind)},
    }


def _distinct(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each tensor once, also where two share their memory."""
    seen: set[object] = set()
    for tensor in tensors:
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.data_ptr() else id(tensor)
        if place not in seen:
            seen.add(place)
            yield tensor


def _effective(model: nn.Module) -> Iterator[Tensor]:
    """The parameters, zero where the model computes with zero."""
    found: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            mask = getattr(module, f"{name.removesuffix('_orig')}_mask", None) if name.endswith("_orig") else None
            whole = module() if isinstance(module, ParametrizationList) and name == "original" else parameter
            whole = whole if whole.shape == parameter.shape else parameter
            found[parameter] = whole if mask is None else whole.masked_fill(mask == 0, 0)
    return (found[parameter] for parameter in _distinct(found))


def _packed(model: nn.Module) -> dict[str, Tensor]:
    """Weights and biases of quantised layers by name: they hide in packed form from `parameters` and `state_dict`."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.ao.nn."):
            held: Any = module
            parts = {**held.get_weight(), **held.get_bias()} if hasattr(held, "get_weight") else {}
            for part in ("weight", "bias"):
                if callable(read := getattr(held, part, None)):
                    parts[part] = read()
            kinds = (getattr(each, "dtype", None) for each in (held, getattr(held, "_packed_params", None)))
            if torch.float16 in kinds:  # kept so, unpacked as float32
                parts = {part: tensor.half() if "weight" in part else tensor for part, tensor in parts.items()}
            found |= {f"{name}.{part}": tensor for part, tensor in parts.items() if tensor is not None}
    return found


def _parts(tensor: Tensor) -> dict[str, Tensor]:
    """What a quantised tensor consists of; of any other, itself."""
    if not tensor.is_quantized:
        return {"": tensor}
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scales, zeros = torch.tensor([tensor.q_scale()]).double(), torch.tensor([tensor.q_zero_point()])
    else:
        scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return {"": tensor.int_repr(), ".scales": scales, ".zeros": zeros}


def _state(model: nn.Module) -> Mapping[str, Tensor]:
    """The state dict, and the parts of quantised weights in place of their packed form."""
    state, packed = model.state_dict(), _packed(model)
    if packed:
        state = {name: each for name, each in state.items() if isinstance(each, Tensor) and name not in packed}
    return state | {name + part: each for name, whole in packed.items() for part, each in _parts(whole).items()}
