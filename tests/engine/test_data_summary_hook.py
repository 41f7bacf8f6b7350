"""DataSummaryHook: what is trained on is said, and what cannot work stops before the first iteration."""

from types import SimpleNamespace

import pytest

from lite_detr_mmdet.datasets.checks import DatasetError
from lite_detr_mmdet.engine import DataSummaryHook, data_summary_hook


class Data:
    """Two images with objects of class 0 and 1, and one without objects."""

    ann_file = 'train.json'

    def __init__(self, root, classes=('bolt', 'nut')):
        self.metainfo = dict(classes=classes)
        self.infos = []
        for index, labels in enumerate([(0, 1), (0,), ()]):
            (root / f'{index}.png').touch()
            instances = [dict(bbox_label=label, ignore_flag=0) for label in labels]
            self.infos.append(dict(img_path=str(root / f'{index}.png'), instances=instances))

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, index):
        return self.infos[index]


def make_runner(data, num_classes=2):
    model = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=num_classes))
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=data), model=model)


@pytest.fixture(autouse=True)
def plain_models(monkeypatch):
    monkeypatch.setattr(data_summary_hook, 'is_model_wrapper', lambda model: False)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(data_summary_hook, 'print_log', lambda line, logger: lines.append(line))
    return lines


def test_counts_are_said(tmp_path, said):
    DataSummaryHook().before_train(make_runner(Data(tmp_path)))
    assert said == ['training on 3 images (1 without objects) of train.json: bolt 2, nut 1']


def test_other_number_of_classes_in_the_head(tmp_path, said):
    with pytest.raises(DatasetError, match=r'num_classes must be 2, the classes of train.json, got 80'):
        DataSummaryHook().before_train(make_runner(Data(tmp_path), num_classes=80))


def test_class_without_objects(tmp_path, said):
    data = Data(tmp_path, ('bolt', 'nut', 'screw'))
    with pytest.raises(DatasetError, match="no object of 'screw': remove the class"):
        DataSummaryHook().before_train(make_runner(data, 3))
    DataSummaryHook(allow_empty_classes=True).before_train(make_runner(data, 3))


def test_missing_files(tmp_path, said):
    data = Data(tmp_path)
    (tmp_path / '1.png').unlink()
    with pytest.raises(DatasetError, match=r'train.json: 1 image files are missing: .*1.png'):
        DataSummaryHook().before_train(make_runner(data))
