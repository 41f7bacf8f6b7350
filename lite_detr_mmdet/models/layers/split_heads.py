"""The projected tokens as deformable attention samples them."""

from typing import Optional

from torch import Tensor


def split_heads(projected: Tensor, num_heads: int, key_padding_mask: Optional[Tensor]) -> Tensor:
    """Zero the padded tokens and split the heads.

    Zeroing copies the tokens; the copy then has the heads outside of the tokens, as the CPU kernels read them fastest:
    the tokens of one head lie side by side and do not compete for the same few sets of the cache.

    Args:
        projected (Tensor): (bs, num_value, num_heads * head_dim).
        num_heads (int): Number of heads.
        key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).

    Returns:
        Tensor: (bs, num_value, num_heads, head_dim).
    """
    heads = projected.unflatten(-1, (num_heads, -1))
    if key_padding_mask is None:
        return heads
    if projected.device.type != 'cpu':
        return heads.masked_fill(key_padding_mask[..., None, None], 0.0)
    return heads.transpose(1, 2).masked_fill(key_padding_mask[:, None, :, None], 0.0).transpose(1, 2)
