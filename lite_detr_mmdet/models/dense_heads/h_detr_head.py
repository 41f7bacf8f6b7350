"""Head of H-DETR."""

from typing import Dict, List, Optional, Tuple

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F


@MODELS.register_module()
class HDETRHead(DeformableDETRHead):
    """Head of H-DETR (https://arxiv.org/abs/2207.13080, Sec. 3.2): hybrid matching and look forward twice.

    The first ``num_queries_one2one`` queries are matched one-to-one with the ground truth, the others, which exist in
    training only, with the ground truth repeated ``k_one2many`` times. Both groups share layers and loss functions.

    Args:
        num_queries_one2one (int): Number of one-to-one queries; set by the detector. Defaults to 300.
        num_queries_one2many (int): Number of one-to-many queries in training, 0 for one-to-one matching alone; set by
            the detector. Defaults to 1500.
        k_one2many (int): How often the ground truth is repeated for the one-to-many queries, K. Defaults to 6.
        lambda_one2many (float): Weight of the one-to-many losses. Defaults to 1.0.
        args, kwargs: See mmdet's ``DeformableDETRHead``.

    Raises:
        ValueError: If ``k_one2many`` or ``lambda_one2many`` is out of range.
    """

    def __init__(
        self,
        *args,
        num_queries_one2one: int = 300,
        num_queries_one2many: int = 1500,
        k_one2many: int = 6,
        lambda_one2many: float = 1.0,
        **kwargs,
    ) -> None:
        if k_one2many < 1:
            raise ValueError(f'k_one2many must be at least 1, got {k_one2many}')
        if lambda_one2many < 0:
            raise ValueError(f'lambda_one2many must not be negative, got {lambda_one2many}')
        super().__init__(*args, **kwargs)
        self.num_queries_one2one = num_queries_one2one
        self.num_queries_one2many = num_queries_one2many
        self.k_one2many = k_one2many
        self.lambda_one2many = lambda_one2many

    def forward(self, hidden_states: Tensor, references: List[Tensor]) -> Tuple[Tensor, Tensor]:
        """Predict classes and boxes, looking forward twice (DINO, Sec. 3.5).

        The boxes are the host's. Their gradient reaches one layer further back: the decoder detaches the boxes that it
        hands from layer to layer, while here a layer's box starts from the undetached box of the layer before.

        Args:
            hidden_states (Tensor): Output of each decoder layer, (num_layers, bs, num_queries, dim).
            references (list[Tensor]): Boxes before the first and after each layer, detached, each
                (bs, num_queries, 4), normalised (cx, cy, w, h).

        Returns:
            tuple[Tensor, Tensor]: Class logits, (num_layers, bs, num_queries, num_classes), and normalised boxes
            (cx, cy, w, h), (num_layers, bs, num_queries, 4).
        """
        classes, boxes = [], []
        previous = references[0]
        for index, hidden_state in enumerate(hidden_states):
            offset = self.reg_branches[index](hidden_state)
            classes.append(self.cls_branches[index](hidden_state))
            boxes.append((offset + inverse_sigmoid(previous)).sigmoid())
            previous = (offset + inverse_sigmoid(references[index])).sigmoid()  # references[index + 1], undetached
        return torch.stack(classes), torch.stack(boxes)

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Optional[Tensor],
        enc_bbox_preds: Optional[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: List[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> Dict[str, Tensor]:
        """The host's losses of the one-to-one queries and the encoder, and those of the one-to-many queries.

        Arguments are the host's. The names of the one-to-many losses end in ``_one2many``; they are the same in every
        step, even where an image has no token left for a one-to-many query.
        """
        split = self.num_queries_one2one
        losses = super().loss_by_feat(
            all_layers_cls_scores[:, :, :split],
            all_layers_bbox_preds[:, :, :split],
            enc_cls_scores,
            enc_bbox_preds,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore,
        )
        if self.num_queries_one2many == 0:
            return losses
        if all_layers_cls_scores.shape[2] <= split:
            names = [name for name in losses if not name.startswith('enc_')]
            return {**losses, **{f'{name}_one2many': torch.zeros_like(losses[name]) for name in names}}
        losses_one2many = super().loss_by_feat(
            all_layers_cls_scores[:, :, split:],
            all_layers_bbox_preds[:, :, split:],
            None,  # the encoder's losses are counted once
            None,
            [self._repeat(gt_instances) for gt_instances in batch_gt_instances],
            batch_img_metas,
            batch_gt_instances_ignore,
        )
        for name, loss in losses_one2many.items():
            losses[f'{name}_one2many'] = loss * self.lambda_one2many
        return losses

    def _repeat(self, gt_instances: InstanceData) -> InstanceData:
        """The ground truth of an image, ``k_one2many`` times."""
        return InstanceData(
            bboxes=gt_instances.bboxes.repeat(self.k_one2many, 1), labels=gt_instances.labels.repeat(self.k_one2many)
        )

    def _predict_by_feat_single(
        self, cls_score: Tensor, bbox_pred: Tensor, img_meta: dict, rescale: bool = True
    ) -> InstanceData:
        """As the host's, which stops with an error where there are fewer scores than ``max_per_img``.

        A small image has few queries; with few classes all their scores may be less than the predictions asked for.
        """
        num_scores = cls_score.numel()
        missing = self.test_cfg.get('max_per_img', 0) - num_scores
        if missing > 0:
            cls_score = F.pad(cls_score, (0, 0, 0, missing), value=float('-inf'))  # last in the order of scores
            bbox_pred = F.pad(bbox_pred, (0, 0, 0, missing))
        return super()._predict_by_feat_single(cls_score, bbox_pred, img_meta, rescale)[:num_scores]
