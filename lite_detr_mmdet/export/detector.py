"""A detector that can be exported: images in, boxes, scores and labels out."""

import copy
from typing import Optional, Tuple

import torch
from mmdet.models.detectors import DINO
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ..models.layers import LiteEncoder
from .attention import replace_attention
from .levels import Levels, encoder_reference_points, flatten_levels
from .queries import Queries, find_query_chooser

OUTPUT_NAMES = ('boxes', 'scores', 'labels')


class ExportableDetector(nn.Module):
    """A detector whose forward pass exporters can follow; its results are those of ``predict``.

    It holds a copy of the model. Layers, decoder and head are the model's own; what differs from
    ``predict`` is how they are put together: sizes are Python numbers or symbols, nothing is written in place, boxes
    are made for chosen queries alone, the head runs once, on the last layer.

    Args:
        model (nn.Module): A detector of the family of Deformable DETR.
        attention (str): 'grid' (GridSample), 'gather' (without GridSample) or 'op' (the compiled operator as one
            node). Defaults to 'grid'.
        half (bool): Whether to compute in float16. Inputs, outputs and coordinates stay float32. Defaults to False.
        normalize (bool): Whether the detector takes images as they are read (BGR, 0 to 255) and normalises them.
            Defaults to False: it takes the output of the data preprocessor.

    Raises:
        ValueError: If the model cannot be exported; the message says why.
    """

    def __init__(self, model: nn.Module, attention: str = 'grid', half: bool = False, normalize: bool = False) -> None:
        super().__init__()
        self.choose_queries = find_query_chooser(model)
        if not model.bbox_head.loss_cls.use_sigmoid:
            raise ValueError(
                f'{type(model).__name__} cannot be exported: its classes have a softmax, not a sigmoid (loss_cls)'
            )
        model = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
        replace_attention(model, attention)
        self.model = model
        self.attention = attention
        self.dtype = torch.float16 if half else torch.float32
        self.normalize = normalize
        self.num_layers = model.decoder.num_layers
        self.with_box_refine = model.with_box_refine
        if half:
            _make_half(model)
        # The last layer separately, so that the head runs once: on its output and the boxes that it started from.
        self.first_layers = _with_layers(model.decoder, slice(0, -1))
        self.last_layer = _with_layers(model.decoder, slice(-1, None))
        self.head = _shallow_copy(model.bbox_head)
        for name in ('cls_branches', 'reg_branches'):
            setattr(self.head, name, nn.ModuleList([getattr(model.bbox_head, name)[self.num_layers - 1]]))

    @property
    def num_detections(self) -> int:
        """Detections of each image."""
        num_scores = self.model.num_queries * self.model.bbox_head.cls_out_channels
        return min(self.model.test_cfg.get('max_per_img', self.model.num_queries), num_scores)

    def forward(self, images: Tensor, padding_mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            images (Tensor): (bs, 3, H, W), float32.
            padding_mask (Tensor, optional): True at padded pixels, right of and below the image, bool, (bs, H, W).
                Defaults to None, no padding.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (x1, y1, x2, y2) in pixels of the input, (bs, num_detections, 4);
            scores, best first, (bs, num_detections); labels, int64, (bs, num_detections).
        """
        return self.detect(images, padding_mask)[:3]

    def detect(
        self, images: Tensor, padding_mask: Optional[Tensor] = None, tokens: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Optional[Tensor], Optional[Tensor]]:
        """As :meth:`forward`, with the intermediate results that verification needs.

        Args:
            images (Tensor): (bs, 3, H, W).
            padding_mask (Tensor, optional): (bs, H, W). Defaults to None.
            tokens (Tensor, optional): Tokens to use as queries instead of the best ones, (bs, num_queries).
                Defaults to None.

        Returns:
            tuple: Boxes, scores, labels, the encoder's output, the tokens of the queries and the scores of all tokens;
            the last two are None where queries do not come from tokens.
        """
        if self.normalize:
            images = self._normalize(images)
        feats = self.model.extract_feat(images.to(self.dtype))
        levels = flatten_levels(self.model, feats, padding_mask)
        levels = self._encode(levels)
        queries = self.choose_queries(self.model, levels, tokens)
        classes, boxes = self._decode(levels, queries)
        return (
            *self._select(classes.float(), boxes.float(), images, padding_mask),
            levels.tokens.float(),
            queries.tokens,
            queries.scores,
        )

    def _normalize(self, images: Tensor) -> Tensor:
        preprocessor = self.model.data_preprocessor
        if preprocessor._channel_conversion:
            images = images.flip(1)
        if preprocessor._enable_normalize:
            images = (images - preprocessor.mean) / preprocessor.std
        return images

    def _encode(self, levels: Levels) -> Levels:
        encoder = self.model.encoder
        memory = levels.tokens
        inputs = dict(
            query_pos=levels.position,
            key_padding_mask=levels.padding_mask,
            spatial_shapes=levels.shapes,
            level_start_index=None,
            valid_ratios=levels.valid_ratios,
            reference_points=encoder_reference_points(levels),
        )
        if not isinstance(encoder, LiteEncoder):
            for layer in encoder.layers:
                memory = layer(query=memory, **inputs)
            return levels._replace(tokens=memory)
        parts = encoder.token_parts(levels.shapes)
        for index in range(encoder.num_layers):
            memory = encoder.update_tokens(index, memory, parts, in_place=False, **inputs)
        if encoder.drops_low_levels:
            return levels.keep_last(memory[:, parts.high], encoder.num_low_levels)
        return levels._replace(tokens=memory)

    def _decode(self, levels: Levels, queries: Queries) -> Tuple[Tensor, Tensor]:
        """Class logits (bs, num_queries, num_classes) and normalised boxes (bs, num_queries, 4)."""
        inputs = dict(
            value=levels.tokens,
            key_padding_mask=levels.padding_mask,
            spatial_shapes=levels.shapes,
            level_start_index=None,
            valid_ratios=levels.valid_ratios,
        )
        is_dino = isinstance(self.model, DINO)
        inputs.update(dict(self_attn_mask=None) if is_dino else dict(query_pos=queries.position))
        content, reference = queries.content, queries.reference_points
        refines = self.with_box_refine
        if self.num_layers > 1:
            branches = self.model.bbox_head.reg_branches if refines else None
            content, reference = self.first_layers(
                query=content, reference_points=reference, reg_branches=branches, **inputs
            )
        branches = self.head.reg_branches if refines else None  # the head makes the boxes
        content, _ = self.last_layer(query=content, reference_points=reference, reg_branches=branches, **inputs)
        if is_dino:
            content = self.last_layer.norm(content)
        classes, boxes = self.head(content[None], [reference])
        return classes[0], boxes[0]

    def _select(
        self, classes: Tensor, boxes: Tensor, images: Tensor, padding_mask: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """The best classes of all queries, with boxes in pixels."""
        num_classes = classes.shape[-1]
        count = min(self.num_detections, classes.shape[1] * num_classes)
        scores, index = classes.sigmoid().flatten(1).topk(count, dim=1)
        labels = index % num_classes
        boxes = bbox_cxcywh_to_xyxy(boxes.gather(1, (index // num_classes)[..., None].expand(-1, -1, 4)))
        height, width = images.shape[-2:]
        if padding_mask is None:
            size = torch.stack([torch.scalar_tensor(number, dtype=torch.float32) for number in (width, height)])
        else:
            size = torch.stack([(~padding_mask[:, 0]).sum(1), (~padding_mask[:, :, 0]).sum(1)], -1)[:, None].float()
        return boxes.clamp(0, 1) * torch.cat([size, size], -1), scores, labels


class _Cast(nn.Module):
    """A module with its input or output in a certain dtype."""

    def __init__(self, module: nn.Module, input_dtype: torch.dtype, output_dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.input_dtype = input_dtype
        self.output_dtype = output_dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.to(self.input_dtype)).to(self.output_dtype)


def _make_half(model: nn.Module) -> None:
    """Compute in float16, but with coordinates in float32: at 1000 pixels, float16 has no fractional digits left."""
    model.half()
    if hasattr(model.decoder, 'ref_point_head'):
        model.decoder.ref_point_head = _Cast(model.decoder.ref_point_head, torch.float16, torch.float16)
    branches = model.bbox_head.reg_branches
    for index, branch in enumerate(branches):
        branches[index] = _Cast(branch, torch.float16, torch.float32)


def _shallow_copy(module: nn.Module) -> nn.Module:
    """A copy with the same parameters and children; replacing a child affects only the copy."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other


def _with_layers(decoder: nn.Module, layers: slice) -> nn.Module:
    """A decoder of some of the layers that returns its last state and boxes."""
    part = _shallow_copy(decoder)
    part.layers = nn.ModuleList(decoder.layers[layers])
    part.num_layers = len(part.layers)
    part.return_intermediate = False
    return part
