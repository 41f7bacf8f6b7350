"""Detection in one line."""

import json
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from mmengine.logging import print_log
from mmengine.model import BaseModel
from PIL import Image, ImageOps

from ..compat import check_device
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
            name = describe_input(image)
            raise DatasetError(f'{name} cannot be used as an image: {type(error).__name__}: {error}') from error


def describe_input(image: Any) -> str:
    """An input in messages: its path, or the shape of an array."""
    if isinstance(image, dict):  # with a text, for Grounding DINO
        image = image.get('img_path', image.get('img'))
    return image if isinstance(image, str) else f'an image of shape {np.shape(image)}'


class Detector(DetInferencer):
    """mmdet's ``DetInferencer`` for the models of this package.

    ``Detector('lite-dino-4scale_h3l1-2p1x3_r50', weights='checkpoint.pth')('image.jpg')`` gives
    ``{'predictions': [{'labels': ..., 'names': ..., 'scores': ..., 'bboxes': ...}], ...}``.

    Args:
        model (str | Path, optional): See :func:`lite_detr_mmdet.get_config`. Defaults to None: the config that is
            embedded in the weights; its model and test pipeline are built from known parts only.
        weights (str | Path, optional): A file, a URL, or the name of a model with released weights. Defaults to
            None: those of ``model``.
        device (str, optional): Device. Defaults to None: a GPU if there is one.
        allow_partial (bool): Whether to accept weights that leave more than a tenth of the model random. Defaults to
            False.
        kwargs: Further arguments of ``DetInferencer``.

    Raises:
        DownloadError: If a URL cannot be reached.
        FileNotFoundError: If a file does not exist.
        CheckpointError: If the weights are damaged, or hold more than weights and a config of plain data.
        ValueError: If there is no such model, it has no released weights, the weights hold no config, they cover
            less than nine tenths of the model, or torch does not have the device.
    """

    def __init__(
        self,
        model: Union[str, Path, None] = None,
        weights: Union[str, Path, None] = None,
        device: Optional[str] = None,
        allow_partial: bool = False,
        **kwargs,
    ) -> None:
        check_device(device)
        self._allow_partial = allow_partial
        self._score_thr = 0.0
        self._skipped: Optional[List[Dict[str, str]]] = None
        if model is None:
            if weights is None:
                raise ValueError('model or weights must be given')
            path = find_weights(str(weights), weights)
            assert path is not None  # None is for pretrained=False alone
            meta = read_weights(path)[1]
            if not {'cfg', 'cfg_json'} & meta.keys():
                raise ValueError(f'{path} holds no config: model must be given')
            cfg = inference_config(path, meta)
        else:
            cfg = get_config(model)
            path = find_weights(str(model), True if weights is None else weights)
            assert path is not None
            set_num_classes(cfg, None, read_weights(path)[0])
        super().__init__(model=cfg, weights=str(path), device=device, **kwargs)

    def __call__(
        self, inputs: Any, *args, pred_score_thr: float = 0.3, skip_broken: Optional[bool] = None, **kwargs
    ) -> dict:
        """Detect objects.

        Args:
            inputs (str | Path | np.ndarray | PIL.Image | list): Path or URL of an image, a folder, an image as
                an array (height, width, 3) in BGR or as PIL has it, or a list of images.
            args: Further arguments of ``DetInferencer``.
            pred_score_thr (float): Lowest score, of results and in pictures; 0 returns all. Defaults to 0.3.
            skip_broken (bool, optional): Whether to go on without images that cannot be read. Defaults to None: in a
                folder.
            kwargs: Further arguments of ``DetInferencer``, e.g. ``out_dir``, ``no_save_pred`` and ``batch_size``.

        Returns:
            dict: ``predictions`` and ``visualization``, a list each with an entry for every image that was not
            skipped, and ``skipped``, a list of dicts with the ``input`` and the ``error`` of each image that was.

        Raises:
            DatasetError: If an image cannot be used and is not to be skipped.
            FileNotFoundError: If there is no such file.
        """
        if isinstance(inputs, Path):
            inputs = str(inputs)
        if skip_broken is None:
            skip_broken = isinstance(inputs, str) and Path(inputs).is_dir()
        self._score_thr = pred_score_thr
        self._skipped = [] if skip_broken else None
        results = super().__call__(inputs, *args, pred_score_thr=pred_score_thr, **kwargs)
        return {**results, 'skipped': self._skipped or []}

    def _inputs_to_list(self, inputs: Any) -> list:
        """Images as a list; PIL's become arrays, which are checked."""
        images = super()._inputs_to_list(inputs)
        for index, image in enumerate(images):
            name = f'inputs[{index}]' if len(images) > 1 else 'inputs'
            if isinstance(image, Image.Image):
                image = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]
                images[index] = np.ascontiguousarray(image)
            elif isinstance(image, Path):
                images[index] = str(image)
            elif not isinstance(image, (str, np.ndarray)):
                raise TypeError(
                    f'{name} must be a path, a URL, an array (height, width, 3) in BGR or an image of PIL, got '
                    f'{type(image).__module__}.{type(image).__name__}'
                )
            if isinstance(image, np.ndarray):
                check_image(image, name)
        return images

    def _get_chunk_data(self, inputs: Iterable, chunk_size: int) -> Iterator[List[Tuple[Any, dict]]]:
        """Prepared images, some at a time."""
        prepared = self._prepare(inputs)
        while chunk := list(islice(prepared, chunk_size)):
            yield chunk

    def _prepare(self, inputs: Iterable) -> Iterator[Tuple[Any, dict]]:
        for image in inputs:
            shown = image.get('img', image.get('img_path')) if isinstance(image, dict) else image
            try:
                yield shown, self.pipeline(dict(image) if isinstance(image, dict) else image)
            except (DatasetError, FileNotFoundError) as error:
                if self._skipped is None:
                    raise
                print_log(f'skipped: {error}', logger='current', level=30)
                self._skipped.append(dict(input=describe_input(image), error=str(error)))

    def forward(self, inputs: Union[dict, tuple], **kwargs) -> List[DetDataSample]:
        """Detections above the score threshold."""
        samples = super().forward(inputs, **kwargs)
        for sample in samples:
            if 'pred_instances' in sample and 'scores' in sample.pred_instances:
                sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= self._score_thr]
        return samples

    def pred2dict(self, data_sample: DetDataSample, pred_out_dir: str = '') -> dict:
        """A prediction as plain values, with the names of the classes; written to a file if a folder is given."""
        number = self.num_predicted_imgs
        result = super().pred2dict(data_sample, pred_out_dir)
        if 'labels' in result:
            classes = self.model.dataset_meta['classes']
            # Grounding DINO finds words of the text in place of labels, and says which.
            names = getattr(data_sample.pred_instances, 'label_names', None)
            result['names'] = list(names) if names is not None else [str(classes[label]) for label in result['labels']]
        if pred_out_dir:
            stem = Path(data_sample.img_path).stem if 'img_path' in data_sample else str(number)
            (Path(pred_out_dir) / 'preds' / f'{stem}.json').write_text(json.dumps(result))
        return result

    def _init_pipeline(self, cfg: ConfigType) -> Callable:
        """Test pipeline whose errors name the image."""
        return NamedPipeline(super()._init_pipeline(cfg))

    def _load_weights_to_model(self, model: BaseModel, checkpoint: dict, cfg: ConfigType) -> None:
        if not self._allow_partial:
            check_fit(model, checkpoint.get('state_dict', checkpoint))
        super()._load_weights_to_model(model, checkpoint, cfg)
        # Without names in the weights the parent takes COCO's, whatever the config says.
        model.dataset_meta['classes'] = find_dataset_meta(cfg, checkpoint.get('meta', {}))['classes']
