"""Machines by their data sheets. The rates are of dense products: a sheet's larger number often counts 2:4 zeros."""

from __future__ import annotations

from kit.cost.roofline import Hardware

T, G = 1e12, 1e9

RASPBERRY_PI_5 = Hardware(
    "Raspberry Pi 5",
    {32: 153.6 * G, 16: 307.2 * G, 8: 614.4 * G},
    bandwidth=17.1 * G,
    memory=8 * G,
    source=(
        "four Cortex-A76 at 2.4 GHz and LPDDR4X-4267 of 32 bits (Raspberry Pi 5 product brief, 2023: "
        "raspberrypi.com/products/raspberry-pi-5), two 128-bit multiply-adds a cycle (Arm, Cortex-A76 Software "
        "Optimization Guide, 2019): computed from these"
    ),
)
PHONE = Hardware(
    "iPhone 15 Pro",
    {16: 17.5 * T, 8: 35 * T},
    bandwidth=51.2 * G,
    memory=8 * G,
    source=(
        "35 trillion operations a second (Apple, 12 September 2023: apple.com/newsroom), taken as those "
        "of 8 bits, with half of it in 16; Apple gives neither memory nor bandwidth: our assumption is 8 GB of "
        "LPDDR5-6400 on 64 bits, and the bandwidth is computed from that"
    ),
)
JETSON_ORIN_NANO = Hardware(
    "Jetson Orin Nano",
    {32: 1.28 * T, 16: 10 * T, 8: 20 * T},
    bandwidth=68 * G,
    memory=8 * G,
    sparse=True,
    source=(
        "Jetson Orin Nano Series data sheet, 8 GB module (NVIDIA, 2023: developer.nvidia.com/embedded): 20 TOPS dense "
        "in 8 bits; half of it in 16; 1,024 cores at 625 MHz in 32. Before the faster clocks of December 2024"
    ),
)
H100 = Hardware(
    "H100 SXM",
    {32: 67 * T, 16: 989.4 * T, 8: 1978.9 * T},
    bandwidth=3350 * G,
    memory=80 * G,
    sparse=True,
    source=(
        "H100 Tensor Core GPU data sheet (NVIDIA, 2023: nvidia.com/en-us/data-center/h100), its 32 bits without tensor "
        "cores; the dense rates of 16 and 8 bits are those of the architecture white paper (version 1.04)"
    ),
)
MACHINES = (RASPBERRY_PI_5, PHONE, JETSON_ORIN_NANO, H100)
