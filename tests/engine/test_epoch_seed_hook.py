"""EpochSeedHook: random numbers depend on seed, epoch and rank alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader, Dataset

from lite_detr_mmdet.engine import EpochSeedHook, epoch_seed_hook


class RandomData(Dataset):
    """Samples that are drawn when they are asked for, as augmentations are."""

    metainfo = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


def make_runner(seed=0, epoch=0, loop=EpochBasedTrainLoop, **kwargs):
    dataset = RandomData()
    dataloader = DataLoader(dataset, sampler=DefaultSampler(dataset, seed=99), **kwargs)
    return SimpleNamespace(seed=seed, epoch=epoch, train_loop=loop.__new__(loop), train_dataloader=dataloader)


def epoch_of_data(hook, runner, epoch):
    runner.epoch = epoch
    hook.before_train_epoch(runner)
    return torch.cat([*runner.train_dataloader, torch.rand(1, 4, dtype=torch.float64)])


@pytest.mark.parametrize('num_workers', [0, 2])
def test_epoch_is_the_same_whatever_came_before(num_workers):
    hook = EpochSeedHook()
    whole = make_runner(num_workers=num_workers)
    hook.before_train(whole)
    first, second = (epoch_of_data(hook, whole, epoch) for epoch in (0, 1))
    torch.rand(7), np.random.rand(7), random.random()
    resumed = make_runner(num_workers=num_workers)
    hook.before_train(resumed)
    assert torch.equal(epoch_of_data(hook, resumed, 1), second)
    assert not torch.equal(first[:, 1:], second[:, 1:])


def test_seed_and_rank_count(monkeypatch):
    hook = EpochSeedHook()
    base = epoch_of_data(hook, make_runner(), 0)
    assert not torch.equal(epoch_of_data(hook, make_runner(seed=1), 0), base)
    monkeypatch.setattr(epoch_seed_hook, 'get_rank', lambda: 1)
    assert not torch.equal(epoch_of_data(hook, make_runner(), 0), base)


def test_sampler_takes_the_seed_that_resuming_brought_back():
    runner = make_runner(seed=5)
    EpochSeedHook().before_train(runner)
    assert runner.train_dataloader.sampler.seed == 5


def test_what_cannot_be_seeded_is_refused():
    with pytest.raises(ValueError, match='persistent_workers=False'):
        EpochSeedHook().before_train(make_runner(num_workers=1, persistent_workers=True))
    with pytest.raises(ValueError, match='IterBasedTrainLoop'):
        EpochSeedHook().before_train(make_runner(loop=IterBasedTrainLoop))
