"""Overlays of linear layers and of modules made of them."""

from typing import Iterator, Optional, Tuple

import torch
from mmcv.cnn.bricks import wrappers
from torch import Tensor, nn

from .onednn import NONE, RELU, PackedLinear, block_rows, fused_activation, linear, linear_add, pack_linear
from .overlay import Derived, Overlay, applies, host_class

LINEAR_FORWARDS = (nn.Linear.forward, wrappers.Linear.forward)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer with the forward of torch's or mmcv's."""
    plain = isinstance(module, nn.Linear) and not hasattr(module, 'parametrizations')
    return plain and host_class(module).forward in LINEAR_FORWARDS


def packed_linear(module: nn.Linear, dtype: torch.dtype = torch.float32) -> PackedLinear:
    """The weights of a linear layer in oneDNN's layout, made once."""
    derived = module.__dict__.setdefault(f'packed_{dtype}', Derived())
    sources = (module.weight, module.bias)
    return derived.get(sources, lambda: pack_linear(*sources, dtype))


class FastLinear(Overlay):
    """A linear layer by oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        return linear(x, packed_linear(self, self.compute_dtype)).to(x.dtype)


def fusible_steps(modules: nn.Sequential) -> Optional[list]:
    """(linear layer, activation) of a sequence that holds linear layers, activations and dropout only, else None."""
    steps = []
    for module in modules:
        if is_linear(module):
            steps.append((module, NONE))
        elif isinstance(module, (nn.Dropout, nn.Identity)):
            continue
        elif isinstance(module, nn.Sequential):
            inner = fusible_steps(module)
            if not inner:
                return None
            steps += inner
        else:
            activation = fused_activation(module)
            if activation is None or not steps or steps[-1][1] is not NONE:
                return None
            steps[-1] = (steps[-1][0], activation)
    return steps


class FastLinearSequence(Overlay):
    """A sequence of linear layers and activations, each pair in one."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        output = x
        for layer, activation in fusible_steps(self):
            output = linear(output, packed_linear(layer, self.compute_dtype), activation)
        return output.to(x.dtype)


class FastMLP(Overlay):
    """mmdet's ``MLP``: linear layers with ReLU in between."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        output = x
        for index, layer in enumerate(self.layers):
            activation = RELU if index < self.num_layers - 1 else NONE
            output = linear(output, packed_linear(layer, self.compute_dtype), activation)
        return output.to(x.dtype)


def is_plain_ffn(ffn: nn.Module) -> bool:
    """Whether mmcv's ``FFN`` consists of two linear layers, an activation that can be fused, and the identity."""
    steps = fusible_steps(ffn.layers)
    return (
        steps is not None
        and len(steps) == 2
        and steps[1][1] is NONE
        and ffn.add_identity
        and isinstance(ffn.gamma2, nn.Identity)
    )


def ffn_rows(ffn: nn.Module, x: Tensor, identity: Tensor, dtype: torch.dtype) -> Tensor:
    """A plain feed-forward network of mmcv with its identity, for few enough tokens that they stay in the cache."""
    (first, activation), (second, _) = fusible_steps(ffn.layers)
    hidden = linear(x, packed_linear(first, dtype), activation)
    return linear_add(hidden, packed_linear(second, dtype), identity)


def blocks(num_rows: int, numbers_per_row: int) -> Iterator[Tuple[int, int]]:
    """First and last row of each block."""
    size = block_rows(numbers_per_row)
    for start in range(0, num_rows, size):
        yield start, min(start + size, num_rows)


class FastFFN(Overlay):
    """mmcv's ``FFN`` in blocks of tokens, so that its hidden activations stay in the cache."""

    def forward(self, x: Tensor, identity: Optional[Tensor] = None) -> Tensor:
        if not applies(self, x):
            return super().forward(x, identity)
        identity = x if identity is None else identity
        rows, identity_rows = x.reshape(-1, x.shape[-1]), identity.reshape(-1, x.shape[-1])
        output = torch.empty_like(rows)
        for start, stop in blocks(len(rows), self.feedforward_channels):
            output[start:stop] = ffn_rows(self, rows[start:stop], identity_rows[start:stop], self.compute_dtype)
        return output.view(x.shape)
