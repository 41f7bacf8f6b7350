"""Detection in one line."""

from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np
from mmdet.apis import DetInferencer
from mmdet.utils import ConfigType
from mmengine.model import BaseModel

from ..checkpoint import cached_weights
from ..datasets.checks import DatasetError, check_image
from ..zoo import get_config
from .embedded_config import inference_config
from .fit import check_fit
from .models import find_dataset_meta, find_weights, read_weights, set_num_classes


class NamedPipeline:
    """A pipeline whose errors name the image.

    Args:
        pipeline (Compose): The pipeline.
    """

    def __init__(self, pipeline: Callable) -> None:
        self.pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['pipeline'], name)

    def __call__(self, image: Any) -> dict:
        try:
            return self.pipeline(image)
        except FileNotFoundError:
            raise  # it names the file
        except Exception as error:  # whatever a transform raises
            name = image if isinstance(image, str) else f'an image of shape {np.shape(image)}'
            raise DatasetError(f'{name} cannot be used as an image: {type(error).__name__}: {error}') from error


class Detector(DetInferencer):
    """mmdet's ``DetInferencer`` for the models of this package.

    ``Detector('lite-dino-4scale_h3l1-2p1x3_r50', weights='checkpoint.pth')('image.jpg')`` gives
    ``{'predictions': [{'labels': ..., 'scores': ..., 'bboxes': ...}], ...}``; arguments of the call are those of
    ``DetInferencer``, e.g. ``out_dir`` and ``pred_score_thr``.

    Args:
        model (str | Path, optional): See :func:`lite_detr_mmdet.get_config`. Defaults to None: the config that is
            embedded in the weights; its model and test pipeline are built from known parts only.
        weights (str | Path, optional): A file or a URL. Defaults to None: the released weights of the model.
        device (str, optional): Device. Defaults to None: a GPU if there is one.
        allow_partial (bool): Whether to accept weights that leave more than a tenth of the model random. Defaults to
            False.
        kwargs: Further arguments of ``DetInferencer``.

    Raises:
        DownloadError: If a URL cannot be reached.
        FileNotFoundError: If a file does not exist.
        CheckpointError: If the weights are damaged, or hold more than weights and a config of plain data.
        ValueError: If there is no such model, it has no released weights, the weights hold no config, or they cover
            less than nine tenths of the model.
    """

    def __init__(
        self,
        model: Union[str, Path, None] = None,
        weights: Union[str, Path, None] = None,
        device: Optional[str] = None,
        allow_partial: bool = False,
        **kwargs,
    ) -> None:
        self._allow_partial = allow_partial
        if model is None:
            if weights is None:
                raise ValueError('model or weights must be given')
            path = cached_weights(weights)
            meta = read_weights(path)[1]
            if not {'cfg', 'cfg_json'} & meta.keys():
                raise ValueError(f'{path} holds no config: model must be given')
            cfg = inference_config(path, meta)
        else:
            cfg = get_config(model)
            found = find_weights(str(model), True if weights is None else weights)
            assert found is not None  # None is for pretrained=False alone
            path = found
            set_num_classes(cfg, None, read_weights(path)[0])
        super().__init__(model=cfg, weights=str(path), device=device, **kwargs)

    def _inputs_to_list(self, inputs: Any) -> list:
        """Images as a list; arrays are checked."""
        images = super()._inputs_to_list(inputs)
        for index, image in enumerate(images):
            if isinstance(image, np.ndarray):
                check_image(image, f'inputs[{index}]' if len(images) > 1 else 'inputs')
        return images

    def _init_pipeline(self, cfg: ConfigType) -> Callable:
        """Test pipeline whose errors name the image."""
        return NamedPipeline(super()._init_pipeline(cfg))

    def _load_weights_to_model(self, model: BaseModel, checkpoint: dict, cfg: ConfigType) -> None:
        if not self._allow_partial:
            check_fit(model, checkpoint.get('state_dict', checkpoint))
        super()._load_weights_to_model(model, checkpoint, cfg)
        # Without names in the weights the parent takes COCO's, whatever the config says.
        model.dataset_meta['classes'] = find_dataset_meta(cfg, checkpoint.get('meta', {}))['classes']
