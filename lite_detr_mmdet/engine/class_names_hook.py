"""Stop before the first iteration if a class of the config is not in the annotations."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.checks import check_class_names


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Check the class names before a run begins; see :func:`lite_detr_mmdet.datasets.checks.check_class_names`.

    The tools of this package check them for every config. Elsewhere use it as
    ``default_hooks = dict(class_names=dict(type='ClassNamesHook'))``.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Check the data sets of all loops that are built.

        Raises:
            DatasetError: If a class is not in the annotations.
        """
        for name in ('_train_loop', '_val_loop', '_test_loop'):
            dataloader = getattr(getattr(runner, name, None), 'dataloader', None)
            if dataloader is not None:
                check_class_names(dataloader.dataset)
