"""Cost on paper: what a network of any size takes, from its dimensions alone, and the least time on a named machine.

| to | call |
|---|---|
| say a network | `Transformer("mine", layers=12, ...)`, `resnet("mine", (2, 2))`; or `BERT_BASE`, `RESNET_50` ... |
| count its parameters | `LLAMA_7B.parameters`, `.parts` |
| know its bytes | `.bytes(Storage(bits=4, group=128))`, `.cache(tokens=2048)`, `.activations(tokens=2048)` |
| count FLOPs (two a multiply-add) | `.flops(tokens=2048)`, `RESNET_50.flops()`; `RESNET_50.macs()` |
| bound the time of a step | `bound(LLAMA_7B.decode(batch=1, context=2048), H100)` |
| measure this machine's roofline | `here()` (loads torch) |
| see what each compression would buy | `compressions(LLAMA_7B, H100)` |
| know what training would take | `training(GPT3, tokens=300e9)` |

A bound is no measurement: nothing can be faster, and most is slower. Nothing here knows about accuracy.
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.cost.compression import Bought, compressions
from kit.cost.convnet import ConvNet, Layer, perceptron, resnet, separable
from kit.cost.hardware import H100, JETSON_ORIN_NANO, MACHINES, PHONE, RASPBERRY_PI_5
from kit.cost.published import (
    BERT_BASE,
    CONVNETS,
    GPT2,
    GPT2_XL,
    GPT3,
    LENET_5,
    LLAMA2_70B,
    LLAMA_7B,
    MINILM,
    MOBILENET,
    OPT_13B,
    RESNET_18,
    RESNET_50,
    TRANSFORMERS,
    VIT_B,
)
from kit.cost.roofline import Bound, Hardware, Step, bound
from kit.cost.storage import FLOAT16, Storage
from kit.cost.training import Training, training
from kit.cost.transformer import Transformer


def here() -> Hardware:
    """This machine, measured; see `kit.cost.machine.here`."""
    from kit.cost import machine

    return machine.here()
