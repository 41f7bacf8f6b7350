"""Head of Lite-DINO."""

from typing import List, Optional, Tuple

from mmdet.models.dense_heads import DINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LiteDINOHead(DINOHead):
    """mmdet's ``DINOHead`` that decodes boxes as the authors of DINO and Lite DETR do.

    Boxes are the decoder's references, moved by the box branches in the space of logits. The authors keep references
    ``reference_eps`` away from 0 and 1 on the way there, in the decoder as well as in the head. mmdet's decoder does
    so too, with the same 1e-3, but its head has 1e-5: boxes whose reference lies within 1e-3 of the image's border
    then differ by up to 3.8e-4 of the image. Evaluate weights with the setting that they were trained with.

    The authors also tie the branches: one class and one box branch serve all layers of the decoder, while the
    encoder's proposals have their own. mmdet trains one of each per layer, 0.8M parameters more in a decoder of six
    layers, and forbids sharing in a config (``share_pred_layer``).

    Args:
        reference_eps (float, optional): Distance of the references from 0 and 1; None for mmdet's own head, bit for
            bit. Defaults to 1e-3.
        tied_branches (bool): Whether the decoder's layers share their class branch and their box branch, as in the
            authors' models. The names in the state dict stay the same. Defaults to False, as in mmdet.
        args, kwargs: See mmdet's ``DINOHead``.

    Raises:
        ValueError: If ``reference_eps`` is not between 1e-5 and 0.5.
    """

    def __init__(self, *args, reference_eps: Optional[float] = 1e-3, tied_branches: bool = False, **kwargs) -> None:
        if reference_eps is not None and not 1e-5 <= reference_eps < 0.5:
            raise ValueError(f'reference_eps must be at least 1e-5 and below 0.5, or None, got {reference_eps}')
        self.reference_eps = reference_eps
        self.tied_branches = tied_branches
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Build the branches; tied ones are the same module for all layers of the decoder."""
        super()._init_layers()
        if self.tied_branches:
            num_tied = self.num_pred_layer - int(self.as_two_stage)  # the last branch is the encoder's
            for branches in (self.cls_branches, self.reg_branches):
                for index in range(1, num_tied):
                    branches[index] = branches[0]

    def forward(self, hidden_states: Tensor, references: List[Tensor]) -> Tuple[Tensor, Tensor]:
        """Classes and boxes of all decoder layers; shapes as in mmdet's ``DINOHead``.

        Args:
            hidden_states (Tensor): (num_decoder_layers, bs, num_queries, dim).
            references (list[Tensor]): The decoder's references before and after each layer, normalised cxcywh,
                (bs, num_queries, 4) each.

        Returns:
            tuple[Tensor, Tensor]: Class logits, (num_decoder_layers, bs, num_queries, num_classes), and normalised
            cxcywh boxes, (num_decoder_layers, bs, num_queries, 4).
        """
        if self.reference_eps is not None:
            # References whose logits are those wanted: the parent's smaller limit then has nothing to do.
            references = [inverse_sigmoid(item, eps=self.reference_eps).sigmoid() for item in references]
        return super().forward(hidden_states, references)
