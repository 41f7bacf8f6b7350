"""Pictures of a trace, those of several models side by side."""

from pathlib import Path
from typing import Callable, Dict, List, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..output_files import write_whole
from .attention import AttentionLayer, AttentionTrace
from .attention_choice import Points, image_size, strongest_of_query, strongest_on_level

MARKERS = ('o', 's', '^', 'D', 'P', 'X', 'v')  # a level each, those of the highest resolution first
COLORS = 'viridis'
WIDTH = 5.2  # inches of a column


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the file is there completely or not at all."""
    FigureCanvasAgg(figure)
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=110))


def _panels(image: np.ndarray, columns: int, rows: int = 1, width: float = WIDTH) -> tuple:
    height = width * image.shape[0] / image.shape[1]
    figure = Figure(figsize=(width * columns + 0.4, (height + 0.4) * rows + 0.5), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.imshow(image[..., ::-1], alpha=0.75, extent=(0, image.shape[1], image.shape[0], 0))
        axis.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), xticks=[], yticks=[])
    return figure, axes


def _scatter(axis, points: Points, largest: float, shapes: Sequence[tuple]):
    """Draw samples; a marker for each level, size and colour by weight. Those of large weight lie on top."""
    drawn = None
    for level, (height, width) in enumerate(shapes):
        of_level = (points.levels == level).flip(0)
        weights = points.weights.flip(0)[of_level].cpu().numpy()
        x, y = points.xy.flip(0)[of_level].T.cpu().numpy()
        sizes = 8 + 60 * weights / max(largest, 1e-12)
        style = dict(marker=MARKERS[level % len(MARKERS)], cmap=COLORS, vmin=0, vmax=largest)
        drawn = axis.scatter(x, y, sizes, weights, edgecolors='white', linewidths=0.4, **style)
        axis.scatter([], [], 30, 'grey', marker=style['marker'], label=f'level {level}: {height}x{width}')
    return drawn


def describe(layer: AttentionLayer) -> str:
    """A layer in a few words."""
    updated = {'all': 'all tokens', 'high': 'high-level tokens', 'low': 'low-level tokens', 'queries': 'queries'}
    return f'{layer.part} layer {layer.index} ({updated[layer.updates]})'


def _finish(figure: Figure, axes: np.ndarray, drawn, title: str) -> Figure:
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label='weight', pad=0.01)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=len(labels), fontsize=8, frameon=False)
    return figure


def draw_query(image: np.ndarray, layers: Dict[str, AttentionLayer], queries: Sequence[int], count: int) -> Figure:
    """The strongest samples of one query on all levels, (a) in Figure 5 of the paper.

    Args:
        image (np.ndarray): The image, (height, width, 3) in BGR.
        layers (dict[str, AttentionLayer]): The layer of each model, by the model's name.
        queries (sequence[int]): The query of each.
        count (int): How many samples.
    """
    figure, axes = _panels(image, len(layers))
    found = [strongest_of_query(layer, query, count) for layer, query in zip(layers.values(), queries)]
    largest = max(float(points.weights.max()) for points in found)
    for axis, (name, layer), query, points in zip(axes[0], layers.items(), queries, found):
        drawn = _scatter(axis, points, largest, layer.level_shapes)
        reference = layer.reference_pixels[0, query].tolist()
        if len(reference) == 4:
            x, y, width, height = reference
            axis.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, fill=False, ec='red', lw=1.5))
        axis.plot(*reference[:2], '+', color='red', markersize=14, markeredgewidth=2)
        axis.set_title(f'{name}\n{describe(layer)}, query {query}', fontsize=9, parse_math=False)
    return _finish(figure, axes, drawn, f'The {len(found[0].weights)} samples of one query with the largest weights')


def draw_level(image: np.ndarray, layers: Dict[str, AttentionLayer], level: int, count: int) -> Figure:
    """The strongest samples of all queries on one level, (b) and (c) in Figure 5 of the paper."""
    figure, axes = _panels(image, len(layers))
    found = [strongest_on_level(layer, level, count) for layer in layers.values()]
    largest = max(float(points.weights.max()) for points in found)
    for axis, (name, layer), points in zip(axes[0], layers.items(), found):
        drawn = _scatter(axis, points, largest, layer.level_shapes)
        axis.set_title(f'{name}\n{describe(layer)}', fontsize=9, parse_math=False)
    title = f'The {len(found[0].weights)} samples of all queries on level {level} with the largest weights'
    return _finish(figure, axes, drawn, title)


def draw_selection(image: np.ndarray, traces: Dict[str, AttentionTrace]) -> Figure:
    """Scores of the tokens as queries, a column for each level and a row for each model.

    Crosses are tokens that became queries.

    Raises:
        ValueError: If no model chooses its queries among tokens.
    """
    chosen = {name: trace for name, trace in traces.items() if trace.selection is not None}
    if not chosen:
        raise ValueError('no model chooses its queries among tokens')
    columns = max(len(trace.selection.level_shapes) for trace in chosen.values())
    figure, axes = _panels(image, columns, len(chosen), 0.6 * WIDTH)
    for row, (name, trace) in zip(axes, chosen.items()):
        first, width_height = 0, image_size(trace.decoder[0])
        for axis, scores in zip(row, trace.selection.maps()):
            (height, width), scores = scores.shape[1:], scores[0].cpu()
            drawn = axis.imshow(
                scores,
                alpha=0.7,
                extent=(0, width_height[0], width_height[1], 0),
                cmap='magma',
                interpolation='nearest',
            )
            number = ''
            if trace.selection.chosen is not None:
                tokens = trace.selection.chosen[0].cpu() - first
                tokens = tokens[(tokens >= 0) & (tokens < height * width)]
                x = (tokens % width + 0.5) * width_height[0] / width
                y = (tokens // width + 0.5) * width_height[1] / height
                axis.plot(x, y, '+', color='cyan', markersize=4, markeredgewidth=0.8)
                number = f', {len(tokens)} chosen'
            axis.set_title(f'{height}x{width} tokens{number}', fontsize=8)
            figure.colorbar(drawn, ax=axis, shrink=0.8, label='score', pad=0.01)
            first += height * width
        row[0].set_ylabel(name, fontsize=6, parse_math=False)
    figure.suptitle('Query selection', fontsize=10)
    return figure


def write_pictures(
    folder: Path,
    image: np.ndarray,
    traces: Dict[str, AttentionTrace],
    layers: Dict[str, AttentionLayer],
    queries: Sequence[int],
    count: int,
) -> List[Path]:
    """Write all pictures of a layer into a folder and return their paths."""
    stem = '-'.join(sorted({f'{layer.part}{layer.index}' for layer in layers.values()}))
    num_levels = min(len(layer.level_shapes) for layer in layers.values())
    drawings: Dict[str, Callable[[], Figure]] = {
        f'{stem}_query.png': lambda: draw_query(image, layers, queries, count)
    }
    for level in range(num_levels):
        drawings[f'{stem}_level{level}.png'] = lambda level=level: draw_level(image, layers, level, count)
    if any(trace.selection is not None for trace in traces.values()):
        drawings['query_selection.png'] = lambda: draw_selection(image, traces)
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in drawings.items():
        save_figure(draw(), folder / name)
    return [folder / name for name in drawings]
