"""Networks that everybody knows, by the dimensions that their papers give.

A paper's table has layers, width and heads; where it has no more, the rest is from the configuration of the weights.
"""

from __future__ import annotations

from dataclasses import replace

from kit.cost.convnet import ConvNet, Layer, perceptron, resnet, separable
from kit.cost.transformer import Transformer

_HE = "He et al. 2016, arXiv:1512.03385, table 1"

BERT_BASE = Transformer(
    "BERT-base",
    12,
    768,
    12,
    3072,
    30522,
    512,
    512,
    decoder=False,
    segments=2,
    head="none",
    pooler=True,
    source="Devlin et al. 2019, arXiv:1810.04805, section 3",
)
MINILM = replace(
    BERT_BASE,
    name="MiniLM-L6",
    layers=6,
    width=384,
    hidden=1536,
    source="Wang et al. 2020, arXiv:2002.10957; the six-layer sentence encoder all-MiniLM-L6-v2",
)
VIT_B = Transformer(
    "ViT-B/16",
    12,
    768,
    12,
    3072,
    0,
    197,
    197,
    decoder=False,
    head="none",
    classes=1000,
    patch=3 * 16 * 16,
    source="Dosovitskiy et al. 2021, arXiv:2010.11929, table 1; images of 224 x 224",
)
GPT2 = Transformer(
    "GPT-2",
    12,
    768,
    12,
    3072,
    50257,
    1024,
    1024,
    source="Radford et al. 2019, table 2; the count of 117 M was corrected to 124 M: github.com/openai/gpt-2",
)
GPT2_XL = Transformer(
    "GPT-2 XL", 48, 1600, 25, 6400, 50257, 1024, 1024, source="Radford et al. 2019, table 2: github.com/openai/gpt-2"
)
OPT_13B = Transformer(
    "OPT-13B",
    40,
    5120,
    40,
    20480,
    50272,
    2048,
    2050,
    source="Zhang et al. 2022, arXiv:2205.01068, table 1, and the config.json of facebook/opt-13b",
)
LLAMA_7B = Transformer(
    "LLaMA-7B",
    32,
    4096,
    32,
    11008,
    32000,
    2048,
    gated=True,
    biases=False,
    rms=True,
    head="own",
    source="Touvron et al. 2023, arXiv:2302.13971, table 2, and the config.json of the weights",
)
LLAMA2_70B = Transformer(
    "LLaMA-2-70B",
    80,
    8192,
    64,
    28672,
    32000,
    4096,
    kv_heads=8,
    gated=True,
    biases=False,
    rms=True,
    head="own",
    source="Touvron et al. 2023, arXiv:2307.09288, table 1, and the config.json of meta-llama/Llama-2-70b-hf",
)
GPT3 = Transformer(
    "GPT-3", 96, 12288, 96, 4 * 12288, 50257, 2048, 2048, source="Brown et al. 2020, arXiv:2005.14165, table 2.1"
)
TRANSFORMERS = (MINILM, BERT_BASE, VIT_B, GPT2, GPT2_XL, LLAMA_7B, OPT_13B, LLAMA2_70B, GPT3)

LENET_5 = ConvNet(
    "LeNet-5",
    (
        Layer(1, 20, 5, 24, bias=True, norm=False),
        Layer(20, 50, 5, 8, bias=True, norm=False),
        *perceptron((800, 500, 10)),
    ),
    28 * 28,
    "LeCun et al. 1998, in the variant of Caffe's examples, as Han et al. 2015, arXiv:1506.02626, table 3",
)
RESNET_18 = resnet("ResNet-18", (2, 2, 2, 2), source=_HE)
RESNET_50 = resnet("ResNet-50", (3, 4, 6, 3), bottleneck=True, source=_HE)
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
MOBILENET = separable("MobileNet", _PAIRS, source="Howard et al. 2017, arXiv:1704.04861, table 1")
CONVNETS = (LENET_5, MOBILENET, RESNET_18, RESNET_50)
