"""Check that an exported model gives the predictions of the original model."""

import copy
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from .compare import BOUNDS, Bounds, Detections, Difference, compare_detections, relative_l2
from .detector import ExportableDetector
from .images import read_images
from .measurement import Measurement, measure_peak, measure_seconds
from .onnx_model import ImageFormat, smallest_size

MOST_ROUNDING = 10  # times the bounds of float32
Runner = Callable[[Dict[str, np.ndarray]], Dict[str, np.ndarray]]


class VerificationError(ValueError):
    """An exported model differs from the original model."""


class Batch(NamedTuple):
    """Images to verify with: (bs, 3, H, W), as the exported model takes them, and (height, width) of each."""

    images: Tensor
    sizes: List[Tuple[int, int]]

    @property
    def padding_mask(self) -> Tensor:
        """True at padded pixels, (bs, H, W)."""
        mask = torch.ones(len(self.sizes), *self.images.shape[-2:], dtype=torch.bool)
        for image, (height, width) in zip(mask, self.sizes):
            image[:height, :width] = False
        return mask

    def inputs(self, padding_mask: bool) -> Dict[str, np.ndarray]:
        inputs = {'images': self.images.numpy()}
        if padding_mask:
            inputs['padding_mask'] = self.padding_mask.numpy()
        return inputs


def make_batches(images: ImageFormat, folder: Optional[Path] = None, count: int = 3, smallest: int = 1) -> List[Batch]:
    """Batches in the sizes that a model takes: another batch and other sizes where these may change.

    Args:
        images (ImageFormat): What the model takes.
        folder (Path, optional): Images to read; by default they are generated.
        count (int): Batches of the first size. Defaults to 3.
        smallest (int): Smallest side that the model takes. Defaults to 1.
    """
    shapes = [(images.batch, images.height, images.width)] * count
    if images.dynamic:
        shapes += [
            (images.batch + 1, max(images.height * 7 // 8 + 3, smallest), images.width),
            (1, images.height, max(images.width * 3 // 4 + 5, smallest)),
        ]
    source = read_images(folder)
    batches = []
    for number, height, width in shapes:
        pictures, sizes = torch.zeros(number, 3, height, width), []
        for index in range(number):
            # With a mask every second image is smaller than the batch.
            size = (height * 3 // 4, width * 7 // 8) if images.padding_mask and index % 2 else (height, width)
            picture = next(source)(*size)
            pictures[index, :, : size[0], : size[1]] = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()
            sizes.append(size)
        batches.append(Batch(pictures, sizes))
    return batches


def predict(model: nn.Module, batch: Batch, normalized: Tensor) -> List[Detections]:
    """What the model predicts, by mmdet's own ``predict``, in pixels of the input."""
    shape = tuple(normalized.shape[-2:])
    samples = [
        DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=shape, scale_factor=(1.0, 1.0)))
        for size in batch.sizes
    ]
    with torch.no_grad():
        results = model.predict(normalized, samples, rescale=False)
    instances = [result.pred_instances for result in results]
    return [Detections(item.bboxes.numpy(), item.scores.numpy(), item.labels.numpy()) for item in instances]


def normalize(model: nn.Module, batch: Batch) -> Tensor:
    """Images as the model's data preprocessor gives them to the model; padding is zero."""
    preprocessor = model.data_preprocessor
    images = batch.images.flip(1) if preprocessor._channel_conversion else batch.images
    if preprocessor._enable_normalize:
        images = (images - preprocessor.mean) / preprocessor.std
    return images.masked_fill(batch.padding_mask[:, None], 0.0)


def rounding_bounds(model: nn.Module, batch: Batch, normalized: Tensor, expected: Sequence[Detections]) -> Bounds:
    """The bounds of float32, widened where the model's own rounding comes near them.

    At 800x1333 a trained model's boxes are off by about 3e-3 px in float32, measured by the same model in float64. An
    exported model that rounds elsewhere may differ by twice as much. However badly a model is conditioned, the bounds
    are not widened by more than ``MOST_ROUNDING``.

    Args:
        model (nn.Module): The detector.
        batch (Batch): Images.
        normalized (Tensor): The images as the model takes them.
        expected (sequence[Detections]): What the model predicts in float32.
    """
    bounds = BOUNDS['float32']
    widest = bounds._replace(box=MOST_ROUNDING * bounds.box, score=MOST_ROUNDING * bounds.score)
    exact = predict(copy.deepcopy(model).double(), batch, normalized.double())
    rounding = [compare_detections(*pair, widest) for pair in zip(exact, expected)]
    return bounds._replace(
        box=min(max(bounds.box, *(2 * item.box for item in rounding)), widest.box),
        score=min(max(bounds.score, *(2 * item.score for item in rounding)), widest.score),
    )


def split(outputs: Dict[str, np.ndarray]) -> List[Detections]:
    """Detections of each image."""
    return [Detections(*item) for item in zip(outputs['boxes'], outputs['scores'], outputs['labels'])]


class Report(NamedTuple):
    """What verification found.

    Attributes:
        lines (list[str]): One for each batch.
        model (Measurement): mmdet's ``predict`` of the first batch.
        exported (Measurement): The exported model.
    """

    lines: List[str]
    model: Measurement
    exported: Measurement

    def __str__(self) -> str:
        return '\n'.join([*self.lines, f'model in torch: {self.model}', f'exported: {self.exported}'])


def verify(
    model: nn.Module,
    detector: ExportableDetector,
    runner: Runner,
    inspecting_runner: Optional[Callable[[], Runner]],
    images: ImageFormat,
    folder: Optional[Path] = None,
) -> Report:
    """Compare an exported model with its model.

    Args:
        model (nn.Module): The detector.
        detector (ExportableDetector): What was exported.
        runner (callable): Runs the exported model.
        inspecting_runner (callable, optional): Makes a runner of the exported model that also gives the encoder's
            output, the chosen tokens and the scores of all tokens. Needed only where detections differ, to tell an
            error from another order of near-equal scores.
        images (ImageFormat): What images the model takes.
        folder (Path, optional): Images to compare with; by default they are generated.

    Raises:
        VerificationError: If they differ by more than the bounds.
    """
    bounds = BOUNDS['float16' if detector.dtype == torch.float16 else 'float32']
    batches = make_batches(images, folder, smallest=smallest_size(detector) if images.dynamic else 1)
    lines, calls, memory = [], [], []
    for batch in batches:
        normalized = normalize(model, batch)
        inputs = batch if detector.normalize else batch._replace(images=normalized)
        if not calls:
            calls = [partial(predict, model, batch, normalized), partial(runner, inputs.inputs(images.padding_mask))]
            memory = [measure_peak(call) for call in calls]  # before anything else has run
        found = split(runner(inputs.inputs(images.padding_mask)))
        expected = predict(model, batch, normalized)
        differences = [compare_detections(*pair, bounds) for pair in zip(expected, found)]
        line = _describe(batch, differences)
        if not all(difference.is_within(bounds) for difference in differences):
            wider = bounds if detector.dtype == torch.float16 else rounding_bounds(model, batch, normalized, expected)
            in_wider = [compare_detections(*pair, wider) for pair in zip(expected, found)]
            if all(difference.is_within(wider) for difference in in_wider):
                line = f'{_describe(batch, in_wider)}; allowed {_allowed(wider)}, as float32 rounds that much here'
            elif inspecting_runner is None:
                raise VerificationError(f'the exported model differs: {line}, allowed {_allowed(wider)}')
            else:
                line += '; ' + _explain(detector, inspecting_runner(), inputs, images, wider)
        elif not bounds.all_detections and not sum(difference.sure for difference in differences):
            line += (
                f'; no score above 0.3, so {_inspect_memory(detector, inspecting_runner(), inputs, images, bounds)}'
            )
        lines.append(line)
    measurements = [Measurement(measure_seconds(call), peak) for call, peak in zip(calls, memory)]
    return Report(lines, *measurements)


def _describe(batch: Batch, differences: Sequence[Difference]) -> str:
    number, _, height, width = batch.images.shape
    return (
        f'{number} x {height}x{width}: {sum(item.compared for item in differences)} detections agree '
        f'({sum(item.sure for item in differences)} with scores above 0.3), '
        f'boxes within {max(item.box for item in differences):.1e} px, '
        f'scores within {max(item.score for item in differences):.1e}; '
        f'{sum(item.missing for item in differences)} differ '
        f'({sum(item.missing_sure for item in differences)} with scores above 0.3)'
    )


def _allowed(bounds: Bounds) -> str:
    return f'{bounds.box:.2g} px and scores {bounds.score:.2g}'


def _detect(detector: ExportableDetector, batch: Batch, padding_mask: bool, tokens: Optional[Tensor] = None) -> tuple:
    with torch.no_grad():
        return detector.detect(batch.images, batch.padding_mask if padding_mask else None, tokens)


def _inspect_memory(
    detector: ExportableDetector, runner: Runner, batch: Batch, images: ImageFormat, bounds: Bounds
) -> str:
    """Compare the encoder's output."""
    outputs = runner(batch.inputs(images.padding_mask))
    expected = _detect(detector, batch, images.padding_mask)[3].numpy()
    difference = relative_l2(expected, outputs['memory'])
    if not difference <= bounds.memory:
        raise VerificationError(
            f"the exported model differs: the encoder's output by {difference:.1e} (relative L2), "
            f'allowed {bounds.memory}'
        )
    return f"the encoder's output was compared: within {difference:.1e} (relative L2)"


def _explain(detector: ExportableDetector, runner: Runner, batch: Batch, images: ImageFormat, bounds: Bounds) -> str:
    """Why detections differ: queries that were chosen by near-equal scores, or an error.

    The encoder's output must agree, the exported model must have chosen tokens that are as good, and given these the
    detections must agree.
    """
    described = _inspect_memory(detector, runner, batch, images, bounds)
    outputs = runner(batch.inputs(images.padding_mask))
    if 'tokens' not in outputs:
        raise VerificationError('the exported model differs: ' + described + ', but detections do not agree')
    expected = _detect(detector, batch, images.padding_mask)
    tokens, scores = torch.from_numpy(outputs['tokens']), expected[5]
    noise = (torch.from_numpy(outputs['token_scores']) - scores).abs().max().item()
    own_best = scores.gather(1, expected[4])
    worse = (own_best - scores.gather(1, tokens)).max().item()
    if not (noise <= bounds.logit * max(scores.abs().max().item(), 1.0) and worse <= 2 * noise):
        raise VerificationError(
            f'the exported model differs: {described}, but it chose tokens whose logits are up to {worse:.1e} worse, '
            f'while logits differ by {noise:.1e}'
        )
    boxes, kept, labels = _detect(detector, batch, images.padding_mask, tokens)[:3]
    given = split({'boxes': boxes.numpy(), 'scores': kept.numpy(), 'labels': labels.numpy()})
    differences = [compare_detections(*pair, bounds) for pair in zip(given, split(outputs))]
    changed = int((tokens != expected[4]).sum())
    if not all(difference.is_within(bounds) for difference in differences):
        raise VerificationError(
            f'the exported model differs: with its {changed} other queries given, {_describe(batch, differences)}, '
            f'allowed {_allowed(bounds)}'
        )
    return (
        f'{changed} queries were chosen in another order, by logits that differ by at most {noise:.1e}; with these '
        f'queries all {sum(item.compared for item in differences)} detections agree, '
        f'boxes within {max(item.box for item in differences):.1e} px, '
        f'scores within {max(item.score for item in differences):.1e}'
    )
