"""The tensors that a deformable attention works on, out of the arguments of mmcv's ``forward``."""

from typing import Optional, Tuple

from torch import Tensor


def attention_inputs(
    query: Tensor,
    value: Optional[Tensor],
    identity: Optional[Tensor],
    query_pos: Optional[Tensor],
    batch_first: bool,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Fill in what mmcv's arguments leave out, add the positions, and put the batch first.

    Args:
        query (Tensor): (bs, num_queries, embed_dims), or (num_queries, bs, embed_dims) unless ``batch_first``.
        value (Tensor, optional): Tokens, likewise. None: the query without its positions.
        identity (Tensor, optional): Added to the output, shape of ``query``. None: the query without its positions.
        query_pos (Tensor, optional): Added to the query, not to the identity.
        batch_first (bool): How the tensors are given.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Query, (bs, num_queries, embed_dims); value, (bs, num_value, embed_dims);
        identity, as it was given.
    """
    value = query if value is None else value
    identity = query if identity is None else identity
    if query_pos is not None:
        query = query + query_pos
    if not batch_first:
        query, value = query.transpose(0, 1), value.transpose(0, 1)
    return query, value, identity
