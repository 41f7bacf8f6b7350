"""Make a resumed run equal to one that was never interrupted."""

import random
from functools import partial

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Reseed all sources of random numbers at the beginning of every training epoch.

    The Runner's checkpoints hold no random state, so denoising queries and augmentation after ``--resume`` differ from
    those of an uninterrupted run. With this hook they depend only on the seed of the run, the epoch and the rank.
    Checkpoints are written at the end of epochs: whenever a run is stopped, the resumed one ends with the same
    weights, bit for bit where the operators themselves are deterministic (atomic additions on a GPU are not).

    It also makes data workers draw new numbers in every epoch; mmengine starts them with the same seed each time.
    Use it as ``custom_hooks = [dict(type='EpochSeedHook')]``.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check that the loop and its workers can be seeded.

        Raises:
            ValueError: If training is not by epochs, or if workers outlive an epoch and so cannot be reseeded.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(f'EpochSeedHook needs training by epochs, got {type(runner.train_loop).__name__}')
        dataloader = runner.train_dataloader
        if dataloader.num_workers > 0 and dataloader.persistent_workers:
            raise ValueError('EpochSeedHook needs train_dataloader.persistent_workers=False, got True')
        # The sampler was built before the checkpoint was read, and resuming may have restored another seed.
        for sampler in (dataloader.sampler, getattr(dataloader.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'seed'):
                sampler.seed = runner.seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process and the data workers that it is about to start."""
        source = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()])
        seed = int(source.generate_state(1)[0] >> 1)  # room to add the number of the worker
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        dataloader = runner.train_dataloader
        if dataloader.num_workers > 0:
            dataloader.worker_init_fn = partial(
                worker_init_fn, num_workers=dataloader.num_workers, rank=0, seed=seed, disable_subprocess_warning=True
            )
