"""What training would cost, by the rules of thumb of the scaling laws."""

from __future__ import annotations

from dataclasses import dataclass

from kit import checks
from kit.cost.transformer import Transformer

TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556, table 3
BYTES_A_PARAMETER = 16  # Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1


@dataclass(frozen=True)
class Training:
    """Attributes: tokens read; FLOPs in all; bytes of weights, gradients and Adam's state, without activations."""

    tokens: float
    flops: float
    bytes: float


def training(network: Transformer, tokens: float | None = None) -> Training:
    """Cost of training a transformer once.

    FLOPs are 6 N D of N parameters and D tokens: two a parameter forward, four backward (Kaplan et al. 2020,
    arXiv:2001.08361, section 2.1). Memory is that of Adam in mixed precision, 16 bytes a parameter: 2 of the weight, 2
    of its gradient, 12 of its float32 copy and two moments (Rajbhandari et al. 2020).

    Args:
        network: by its dimensions.
        tokens: to read; by default 20 a parameter, which is about best for a given number of FLOPs (Hoffmann et al.
            2022).

    Raises:
        TypeError: no transformer; images have no tokens to count.
        ValueError: `tokens` is not above 0.
    """
    checks.instance("network", network, Transformer, "a cost.Transformer")
    tokens = TOKENS_A_PARAMETER * network.parameters if tokens is None else checks.number("tokens", tokens, above=0)
    return Training(tokens, 6.0 * network.parameters * tokens, BYTES_A_PARAMETER * network.parameters)
