"""What a checkpoint needs so that training can resume from it."""

from pathlib import Path
from typing import Any, Callable, Union

from .content import check_weights
from .errors import CheckpointError
from .symbols import is_count


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, dict) and isinstance(part.get('state'), dict) and isinstance(part.get('param_groups'), list)
        for part in ([value] if 'state' in value else value.values())
    )


def _is_schedulers(value: Any) -> bool:
    lists = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(item, list) and all(isinstance(state, dict) for state in item) for item in lists)


def _is_message_hub(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), dict) and all(isinstance(key, str) for key in value[name])
        for name in ('log_scalars', 'runtime_info', 'resumed_keys')
    )


def check_resumable(path: Union[str, Path], checkpoint: dict) -> None:
    """Check that a checkpoint has everything that the Runner reads when it resumes.

    Raises:
        CheckpointError: If it does not.
    """

    def need(table: dict, name: str, fits: Callable[[Any], bool], expected: str) -> None:
        if name not in table or not fits(table[name]):
            found = type(table[name]).__name__ if name in table else 'nothing'
            raise CheckpointError(path, f'cannot be resumed: {name} must be {expected}, got {found}')

    need(checkpoint, 'meta', lambda value: isinstance(value, dict), 'a table')
    need(checkpoint, 'state_dict', lambda value: isinstance(value, dict), 'a table of weights')
    check_weights(path, checkpoint['state_dict'], 'state_dict')
    need(checkpoint['meta'], 'epoch', is_count, 'a number')
    need(checkpoint['meta'], 'iter', is_count, 'a number')
    need(checkpoint, 'message_hub', _is_message_hub, "the Runner's tables")
    if checkpoint['meta'].get('seed') is not None:
        need(checkpoint['meta'], 'seed', is_count, 'a number')
    if 'optimizer' in checkpoint:
        need(checkpoint, 'optimizer', _is_optimizer, "an optimizer's state")
    if 'param_schedulers' in checkpoint:
        need(checkpoint, 'param_schedulers', _is_schedulers, 'a list of states')
