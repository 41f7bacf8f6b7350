"""What key-aware deformable attention takes at least on a GPU, from the rates that gpu_limits.py measured."""

from typing import Dict

from torch import Tensor


def count_bytes(arguments: Dict[str, Tensor], passes: str) -> Dict[str, int]:
    """Bytes that a pass moves at least.

    Args:
        arguments (dict[str, Tensor]): Arguments of the operator; the key is the value.
        passes (str): 'forward' or 'backward'.

    Returns:
        dict[str, int]: ``memory``: every input read and every output written once. ``gather``: the four corners of
        every sample. ``atomic``: the same in float32, added without merging (backward alone).
    """
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in arguments.items()}
    query, value, offsets = arguments['query'], arguments['value'], arguments['sampling_offsets']
    inputs = sizes['query'] + sizes['value'] + sizes['reference_points'] + sizes['sampling_offsets']
    logsumexp = 4 * query[..., 0].numel()
    channels = offsets[..., 0].numel() * 4 * query.shape[-1]  # 4 corners a sample
    if passes == 'forward':
        return dict(memory=inputs + sizes['query'] + logsumexp, gather=channels * value.element_size())
    # also the gradient of the output is read, and those of query, value and offsets are written
    gradients = 2 * sizes['query'] + sizes['value'] + sizes['sampling_offsets']
    return dict(
        memory=inputs + gradients + logsumexp,
        gather=channels * value.element_size(),
        atomic=channels * 4,
    )


def floor_seconds(arguments: Dict[str, Tensor], passes: str, rates: Dict[str, float]) -> Dict[str, float]:
    """Least seconds by what bounds them.

    Args:
        arguments (dict[str, Tensor]): Arguments of the operator.
        passes (str): 'forward' or 'backward'.
        rates (dict[str, float]): Bytes a second, as gpu_limits.py writes them.

    Returns:
        dict[str, float]: ``memory``, ``l1_gather`` and ``floor``, the larger of the two; ``l2_gather``, where no
        sample is found in L1; for backward ``atomic``, where no additions are merged. The last two are no floors:
        tiles of neighbouring queries avoid them.
    """
    moved = count_bytes(arguments, passes)
    row = 128 if arguments['value'].element_size() >= 4 else 64
    seconds = dict(
        memory=moved['memory'] / rates['copy'],
        l1_gather=moved['gather'] / rates[f'l1_gather_{row}'],
        l2_gather=moved['gather'] / rates[f'l2_gather_{row}'],
    )
    if 'atomic' in moved:
        seconds['atomic'] = moved['atomic'] / rates.get('atomic_float4', rates['atomic_float'])
    return dict(seconds, floor=max(seconds['memory'], seconds['l1_gather']))
