"""The network that the benchmarks share."""

from __future__ import annotations

from kit import data, models, training

EPOCHS = 15


def trained(seed: int = 0) -> tuple[models.ConvNet, data.Dataset]:
    """The ConvNet of 151 306 parameters after 15 epochs on the digits."""
    digits, net = data.digits(), models.ConvNet(seed=seed)
    training.fit(net, digits, epochs=EPOCHS, seed=seed)
    return net.eval(), digits
