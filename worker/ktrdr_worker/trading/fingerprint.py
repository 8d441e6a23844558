"""What the figures of a job depend on besides the job: software versions, the processor's instruction set, the device."""

from __future__ import annotations

import platform

import numba
import numpy as np
import talib
import torch


def fingerprint(device: str) -> dict[str, str]:
    """Name software and processor. Only where all of it is equal are two runs of a job claimed to agree bit for bit."""
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else device
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "ta-lib": talib.__ta_version__.decode().partition(" ")[0],
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": name,
    }
