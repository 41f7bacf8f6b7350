"""Check that weights belong to a model."""

from typing import Dict

from torch import Tensor, nn

FITTING_SHARE = 0.9  # of a model's parameters that its weights must hold


def check_fit(model: nn.Module, state_dict: Dict[str, Tensor]) -> None:
    """Refuse weights of another model, which would leave most of the model random.

    Raises:
        ValueError: If they hold less than nine tenths of the parameters; the message counts what does not fit.
    """
    wanted = dict(model.named_parameters())
    missing = [name for name in wanted if name not in state_dict]
    unequal = [n for n, p in wanted.items() if n in state_dict and state_dict[n].shape != p.shape]
    fitting = sum(p.numel() for n, p in wanted.items() if n in state_dict and state_dict[n].shape == p.shape)
    share = fitting / max(1, sum(p.numel() for p in wanted.values()))
    if share >= FITTING_SHARE:
        return
    unused = [name for name in state_dict if name not in wanted and name not in dict(model.named_buffers())]
    lines = [f'the weights hold only {share:.0%} of the parameters of the model: they belong to another model']
    for names, what in ((missing, 'missing'), (unequal, 'of another shape'), (unused, 'not in the model')):
        if names:
            lines.append(f'  {len(names)} {what}, e.g. {names[0]}')
    lines.append('  allow_partial=True loads what fits and leaves the rest random')
    raise ValueError('\n'.join(lines))
