"""How each host selects its queries, with boxes only for the selected tokens."""

from typing import Callable, Dict, NamedTuple, Optional, Tuple

import torch
from mmdet.models.detectors import DDQDETR, DINO, DeformableDETR, GroundingDINO
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.detectors import HDETR
from .levels import Levels, encoder_proposals


class Queries(NamedTuple):
    """Inputs of the decoder.

    Attributes:
        content (Tensor): (bs, num_queries, dim).
        position (Tensor, optional): (bs, num_queries, dim), where the decoder does not make it from the boxes.
        reference_points (Tensor): Normalised points (x, y) or boxes (cx, cy, w, h), float32,
            (bs, num_queries, 2 or 4).
        tokens (Tensor, optional): The chosen tokens, (bs, num_queries), where queries come from tokens.
        scores (Tensor, optional): By which they were chosen: one logit for each token, (bs, num_value).
    """

    content: Tensor
    position: Optional[Tensor]
    reference_points: Tensor
    tokens: Optional[Tensor] = None
    scores: Optional[Tensor] = None


class Proposals(NamedTuple):
    """Chosen boxes before the sigmoid (bs, num_queries, 4), their tokens, and the scores of all tokens."""

    boxes: Tensor
    tokens: Tensor
    scores: Tensor


def choose_proposals(
    model: nn.Module, levels: Levels, score: Callable[[Tensor], Tensor], tokens: Optional[Tensor]
) -> Proposals:
    """The best ``num_queries`` proposals of the encoder's output.

    The host regresses a box for each token; here only the selected tokens get one, with the same values.

    Args:
        model (nn.Module): The detector.
        levels (Levels): The encoder's output.
        score (callable): Makes one logit of the class logits.
        tokens (Tensor, optional): Tokens to take instead of the best ones, (bs, num_queries).
    """
    memory = levels.tokens
    proposals, counts = encoder_proposals(levels)
    last = model.decoder.num_layers
    output_memory = model.memory_trans_norm(model.memory_trans_fc(memory.masked_fill(~counts, 0.0)))
    proposals = proposals.expand(memory.shape[0], -1, -1)
    # A size that is a symbol is not compared: the exported model has a lower bound of its inputs instead.
    num_queries, num_tokens = model.num_queries, memory.shape[1]
    if isinstance(num_tokens, int) and num_tokens < num_queries:
        if isinstance(model, HDETR):
            num_queries = num_tokens
        else:  # the Lite hosts fill up with what padded tokens give
            missing = num_queries - num_tokens
            empty = model.memory_trans_norm(model.memory_trans_fc(torch.zeros_like(memory[:, :1])))
            output_memory = torch.cat([output_memory, empty.expand(-1, missing, -1)], 1)
            proposals = F.pad(proposals, (0, 0, 0, missing), value=float('inf'))
    scores = score(model.bbox_head.cls_branches[last](output_memory))
    if tokens is None:
        tokens = scores.topk(num_queries, dim=1).indices
    chosen = output_memory.gather(1, tokens[..., None].expand(-1, -1, output_memory.shape[-1]))
    boxes = model.bbox_head.reg_branches[last](chosen)
    boxes = boxes + proposals.gather(1, tokens[..., None].expand(-1, -1, 4))
    return Proposals(boxes.float(), tokens, scores)


def dino_queries(model: nn.Module, levels: Levels, tokens: Optional[Tensor]) -> Queries:
    """Boxes of the best tokens, learned contents."""
    chosen = choose_proposals(model, levels, lambda classes: classes.max(-1).values, tokens)
    content = model.query_embedding.weight.expand(levels.tokens.shape[0], -1, -1)
    return Queries(content, None, chosen.boxes.sigmoid(), chosen.tokens, chosen.scores)


def deformable_detr_queries(model: nn.Module, levels: Levels, tokens: Optional[Tensor]) -> Queries:
    """One stage: learned queries. Two stages: boxes of the best tokens and contents made from them."""
    if not model.as_two_stage:
        position, content = model.query_embedding.weight.expand(levels.tokens.shape[0], -1, -1).chunk(2, dim=-1)
        return Queries(content, position, model.reference_points_fc(position).float().sigmoid())
    chosen = choose_proposals(model, levels, lambda classes: classes[..., 0], tokens)
    position = model.get_proposal_pos_embed(chosen.boxes).to(levels.tokens.dtype)
    position, content = model.pos_trans_norm(model.pos_trans_fc(position)).chunk(2, dim=-1)
    return Queries(content, position, chosen.boxes.sigmoid(), chosen.tokens, chosen.scores)


def h_detr_queries(model: nn.Module, levels: Levels, tokens: Optional[Tensor]) -> Queries:
    """Boxes of the best tokens, positions made from them, learned contents."""
    chosen = choose_proposals(model, levels, lambda classes: classes[..., 0], tokens)
    dims = model.embed_dims
    position = model.get_proposal_pos_embed(chosen.boxes, num_pos_feats=dims // 2).to(levels.tokens.dtype)
    position = model.pos_trans_norm(model.pos_trans_fc(position))[..., :dims]
    content = model.query_embedding.weight[: chosen.tokens.shape[1]].expand(levels.tokens.shape[0], -1, -1)
    return Queries(content, position, chosen.boxes.sigmoid(), chosen.tokens, chosen.scores)


QueryChooser = Callable[[nn.Module, Levels, Optional[Tensor]], Queries]
# None: known, and known not to be exportable. The nearest class of a model counts.
QUERY_CHOOSERS: Dict[type, Tuple[Optional[QueryChooser], str]] = {
    DINO: (dino_queries, ''),
    DeformableDETR: (deformable_detr_queries, ''),
    HDETR: (h_detr_queries, ''),
    DDQDETR: (None, 'its queries come from non-maximum suppression, whose number of results is not known beforehand'),
    GroundingDINO: (None, 'it needs a language model and a text in addition to the image'),
}


def find_query_chooser(model: nn.Module) -> QueryChooser:
    """How the host of a detector selects its queries.

    Raises:
        ValueError: If the detector cannot be exported; the message says why.
    """
    name = type(model).__name__
    for base in type(model).__mro__:
        if base in QUERY_CHOOSERS:
            chooser, reason = QUERY_CHOOSERS[base]
            if chooser is None:
                raise ValueError(f'{name} cannot be exported: {reason}')
            return chooser
    raise ValueError(
        f'{name} cannot be exported: it is not of the family of Deformable DETR (DeformableDETR, DINO, HDETR and '
        'their Lite forms)'
    )
