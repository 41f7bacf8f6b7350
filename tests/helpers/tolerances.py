"""How far a result may be from the expected one, by the dtype that it is rounded to."""

import torch
from torch import Tensor

# Relative L2 error. Half precision is computed in float32 and rounded once, so it is its unit roundoff.
RELATIVE_L2 = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
# The sums of a gradient cancel, so it is less exact than its terms.
GRADIENT_RELATIVE_L2 = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def relative_l2(actual: Tensor, expected: Tensor) -> float:
    """L2 norm of the difference relative to that of the expected tensor; NaN if either holds one."""
    actual, expected = actual.detach().double(), expected.detach().double()
    norm = expected.norm()
    return float((actual - expected).norm() / norm) if norm > 0 else float(actual.norm())


def cosine(actual: Tensor, expected: Tensor) -> float:
    """Cosine of the angle between two tensors."""
    return float(torch.cosine_similarity(actual.detach().double().flatten(), expected.detach().double().flatten(), 0))


def relative_bias(actual: Tensor, expected: Tensor) -> float:
    """Mean of the difference relative to the mean magnitude: errors that do not average out."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).mean() / expected.abs().mean())
