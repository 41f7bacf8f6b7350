"""Time and memory of key-aware and ordinary deformable attention in several forms, interleaved in one process.

    python benchmarks/key_aware_deform_attn.py                       # CPU, float32, batch 1, glibc as it is
    python benchmarks/key_aware_deform_attn.py --keep-pages          # the same with an allocator that keeps its pages
    python benchmarks/key_aware_deform_attn.py --device cuda --dtypes float32 float16 bfloat16 --batch-sizes 1 2 16 \\
        --passes forward backward --repeats 20 --limits benchmarks/results/gpu/limits.json

Each round runs every form once, in an order that changes; medians over the rounds and their ratios are reported, so
that other work on the machine strikes all forms alike. Two floors are measured in the same rounds: `copy`, a copy of
as many bytes as the forward pass must read and write at least once, and `gather`, torch's embedding_bag over the rows
of the same samples with given indices and weights (in float32): the weighted sum without the attention. With
`--limits`, the floors of a GPU follow from the rates that gpu_limits.py measured.
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

import torch
import torch.nn.functional as F
from floors import floor_seconds
from forms import FORMS
from torch import Tensor

from lite_detr_mmdet.analysis.environment import describe_environment, keep_pages
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_pair
from lite_detr_mmdet.timing import measure_peak_bytes, measure_seconds

RESULTS = Path(__file__).resolve().parent / 'results'
# Levels of an 800 x 1333 image at strides 8 to 64.
SHAPES = ((100, 167), (50, 84), (25, 42), (13, 21))
QUICK_SHAPES = ((8, 10), (4, 5), (2, 3), (1, 2))


def make_arguments(
    bs: int, queries: str, dtype: torch.dtype, device: str, shapes: tuple, offsets: str
) -> Dict[str, Tensor]:
    """Arguments of an encoder layer: queries are the tokens of the levels above the first or of all of them.

    Args:
        bs (int): Number of images.
        queries (str): 'high' or 'all'.
        dtype (torch.dtype): Dtype of query and value; locations are float32, as under autocast.
        device (str): 'cpu' or 'cuda'.
        shapes (tuple): (H, W) of each level.
        offsets (str): 'init', as the module is initialised (a direction per head, one more pixel per point) with a
            deviation of one pixel, or 'random' with a deviation of three pixels.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = [height * width for height, width in shapes]
    references = []
    for height, width in shapes:
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing='ij'
        )
        references.append(torch.stack([x, y], -1).view(-1, 2))
    reference = torch.cat(references if queries == 'all' else references[1:])
    num_queries, num_heads, head_dim, num_points = len(reference), 8, 32, 4
    size = (bs, num_queries, num_heads, len(shapes), num_points, 2)
    sampling_offsets = torch.randn(size, generator=generator)
    if offsets == 'init':
        angles = torch.arange(num_heads) * (2 * torch.pi / num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().max(-1, keepdim=True)[0]
        steps = torch.arange(1, num_points + 1)[:, None]
        sampling_offsets += directions[:, None, None] * steps
    else:
        sampling_offsets *= 3
    return dict(
        query=torch.randn(bs, num_queries, num_heads, head_dim, generator=generator).to(device, dtype),
        value=torch.randn(bs, sum(sizes), num_heads, head_dim, generator=generator).to(device, dtype),
        spatial_shapes=torch.tensor(shapes, device=device),
        level_start_index=torch.tensor([sum(sizes[:level]) for level in range(len(sizes))], device=device),
        reference_points=reference[None, :, None].expand(bs, -1, len(shapes), -1).contiguous().to(device),
        sampling_offsets=sampling_offsets.to(device),
    )


def make_gather_floor(arguments: Dict[str, Tensor]) -> Callable[[], Tensor]:
    """embedding_bag over the four corners of all samples."""
    value = arguments['value'].float()
    bs, num_value, num_heads, head_dim = value.shape
    shapes = arguments['spatial_shapes']
    sizes = shapes.flip(1)[:, None].to(value)
    points = arguments['reference_points'][:, :, None, :, None] * sizes - 0.5 + arguments['sampling_offsets']
    corner = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=value.device)
    pixels = (points.floor()[..., None, :].long() + corner).clamp(min=0)
    pixels = torch.minimum(pixels, (shapes.flip(1) - 1)[:, None, None])
    width = shapes[:, 1][:, None, None]
    tokens = arguments['level_start_index'][:, None, None] + pixels[..., 1] * width + pixels[..., 0]
    image = torch.arange(bs, device=value.device).view(-1, 1, 1, 1, 1, 1)
    head = torch.arange(num_heads, device=value.device).view(1, 1, -1, 1, 1, 1)
    rows = ((image * num_value + tokens) * num_heads + head).flatten(3).flatten(0, 2)
    if bs * num_value * num_heads < 2**31:
        rows = rows.int()
    weights = torch.rand(rows.shape, device=value.device)
    table = value.view(-1, head_dim)
    return lambda: F.embedding_bag(rows, table, mode='sum', per_sample_weights=weights)


def make_copy_floor(arguments: Dict[str, Tensor]) -> Callable[[], Tensor]:
    """Copy as many bytes as the forward pass reads and writes at least: half of them are read, half written."""
    tensors = [arguments[name] for name in ('query', 'value', 'reference_points', 'sampling_offsets', 'query')]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    source = torch.ones(num_bytes // 2, dtype=torch.uint8, device=arguments['value'].device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def make_run(form: Callable[..., Tensor], arguments: Dict[str, Tensor], passes: str) -> Callable[[], None]:
    """One pass of a form: 'forward', 'backward' alone, or 'forward+backward'."""
    if passes == 'forward':

        def run_forward() -> None:
            with torch.no_grad():
                form(**arguments)

        return run_forward

    arguments = dict(arguments)
    names = ('query', 'value', 'sampling_offsets')
    for name in names:
        arguments[name] = arguments[name].detach().requires_grad_()
    grad_output = torch.randn_like(arguments['query']).flatten(2)
    saved = form(**arguments) if passes == 'backward' else None

    def run() -> None:
        output = form(**arguments) if saved is None else saved
        inputs = [arguments[name] for name in names]
        torch.autograd.grad(output, inputs, grad_output.to(output.dtype), retain_graph=saved is not None)

    return run


def benchmark_case(
    arguments: Dict[str, Tensor],
    passes: str,
    forms: List[str],
    device: str,
    repeats: int,
    flush: bool = False,
    layout: str = 'token_major',
) -> Dict[str, dict]:
    """Median and minimum seconds, and peak bytes, of each form; floors have no memory."""
    runs, peaks = {}, {}
    for name in forms:
        try:
            inputs = dict(arguments)
            if layout == 'head_major' and name in ('fused', 'fused_msda'):
                inputs['value'] = inputs['value'].transpose(1, 2).contiguous().transpose(1, 2)
            run = make_run(FORMS[name], inputs, passes)
            run()
            peaks[name] = measure_peak_bytes(run, device)
        except (RuntimeError, ImportError) as error:  # a form that lacks a dtype, memory, or mmcv
            print(f'  {name} does not run: {error}', file=sys.stderr)
            continue
        runs[name] = run
    if passes == 'forward':
        runs['copy'] = make_copy_floor(arguments)
        runs['gather'] = make_gather_floor(arguments)
    seconds = {name: [] for name in runs}
    order = list(runs)
    for index in range(repeats + 1):  # the first round warms up
        for name in order:
            elapsed = measure_seconds(runs[name], device, flush)
            if index > 0:
                seconds[name].append(elapsed)
        order = order[1:] + order[:1]
    return {
        name: dict(median_s=statistics.median(times), min_s=min(times), peak_bytes=peaks.get(name))
        for name, times in seconds.items()
    }


def format_markdown(lines: List[str], cases: List[dict]) -> str:
    """Tables of one case each, below lines about the run."""
    lines = ['# Key-aware deformable attention', '', *lines]
    for case in cases:
        results = case['results']
        fastest = results['fused']['median_s']
        title = '{queries} queries, batch {bs}, {dtype}, {passes}, {offsets} offsets'.format(**case)
        lines += [
            '',
            f'## {title}',
            '',
            '| form | median ms | min ms | time / fused | peak MB |',
            '|---|---|---|---|---|',
        ]
        for name, result in results.items():
            peak = result['peak_bytes']
            lines.append(
                f'| {name} | {result["median_s"] * 1e3:.2f} | {result["min_s"] * 1e3:.2f} '
                f'| {result["median_s"] / fastest:.2f} | {"" if peak is None else f"{peak / 1e6:.1f}"} |'
            )
        for floor in ('copy', 'gather'):
            if floor in results:
                lines += ['', f'Fraction of the {floor} floor: {results[floor]["median_s"] / fastest:.2f}']
        if case.get('floors'):
            least = ', '.join(f'{name} {seconds * 1e6:.1f} us' for name, seconds in case['floors'].items())
            reached = case['floors']['floor'] / fastest
            lines += ['', f'From the rates of this GPU: {least}; fused reaches {reached:.0%} of the floor']
    return '\n'.join(lines)


def parse_args(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--queries', nargs='+', choices=('high', 'all'), default=['high', 'all'])
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1])
    parser.add_argument(
        '--dtypes', nargs='+', choices=('float64', 'float32', 'float16', 'bfloat16'), default=['float32']
    )
    parser.add_argument(
        '--passes',
        nargs='+',
        choices=('forward', 'backward', 'forward+backward'),
        default=['forward', 'forward+backward'],
    )
    parser.add_argument('--offsets', nargs='+', choices=('init', 'random'), default=['init', 'random'])
    parser.add_argument(
        '--forms', nargs='+', choices=tuple(FORMS), default=[form for form in FORMS if form != 'earlier']
    )
    parser.add_argument(
        '--layout',
        choices=('token_major', 'head_major'),
        default='token_major',
        help='of the values that the fused forms read: heads inside of the tokens, or outside as for a padded batch',
    )
    parser.add_argument('--earlier-library', type=Path, help='of .dev_scripts/build_earlier_op.sh, for form earlier')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, help='CPU threads of torch')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--flush', action='store_true', help='empty the caches of the GPU before every call')
    parser.add_argument('--limits', type=Path, help='JSON of gpu_limits.py, for the floors of a GPU')
    parser.add_argument('--mmcv-library', type=Path, help="mmcv's operator alone, of .dev_scripts/build_mmcv_op.py")
    parser.add_argument('--quick', action='store_true', help='toy sizes and one round, to try the script')
    parser.add_argument('--out', type=output_pair, help='write OUT.json and OUT.md')
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    if 'fused' not in args.forms:
        sys.exit('--forms must contain fused, the others are compared with it')
    if args.keep_pages:
        keep_pages()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.earlier_library:
        torch.ops.load_library(str(args.earlier_library))
    if args.mmcv_library:
        torch.ops.load_library(str(args.mmcv_library))
    rates = json.loads(args.limits.read_text())['results'] if args.limits else None
    environment = describe_environment(args.device)
    settings = {'value layout': args.layout}
    if args.device != 'cpu':
        settings['cache'] = 'flushed before every call' if args.flush else 'as it is left'
    cases = []
    for queries, bs, dtype, passes, offsets in itertools.product(
        args.queries, args.batch_sizes, args.dtypes, args.passes, args.offsets
    ):
        arguments = make_arguments(
            bs, queries, getattr(torch, dtype), args.device, QUICK_SHAPES if args.quick else SHAPES, offsets
        )
        results = benchmark_case(
            arguments, passes, args.forms, args.device, 1 if args.quick else args.repeats, args.flush, args.layout
        )
        case = dict(queries=queries, bs=bs, dtype=dtype, passes=passes, offsets=offsets, results=results)
        if rates and passes != 'forward+backward':
            case['floors'] = floor_seconds(arguments, passes, rates)
        cases.append(case)
        print(format_markdown([], cases[-1:]).split('\n', 2)[2], flush=True)
        if args.out is not None:  # after each case: what was measured stays, whatever happens to the next one
            record = Record('key_aware_deform_attn', environment, cases, repeat=args.repeats, settings=settings)
            record.write_pair(args.out, format_markdown(record.lines(), cases))


if __name__ == '__main__':
    main()
