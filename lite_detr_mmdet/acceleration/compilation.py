"""torch.compile of the parts of a detector, with inductor's freezing."""

from typing import List, Optional

from torch import nn

PARTS = ('backbone', 'neck', 'encoder', 'decoder')


def why_not_compile() -> Optional[str]:
    """The reason why inductor cannot compile here; None if it can."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # inductor's own exception types differ between versions of torch
        return f'inductor finds no C++ compiler: {str(error).strip().splitlines()[0]}'
    return None


def compile_parts(model: nn.Module) -> List[str]:
    """Compile backbone, neck, encoder and decoder, when they are first called.

    Weights become constants of the code, so they must not change afterwards. The second new input shape makes the code
    general; further ones are compiled for at most ``torch._dynamo.config.recompile_limit`` times, then run as before.

    Returns:
        list[str]: Names of the parts.
    """
    names = [name for name in PARTS if isinstance(getattr(model, name, None), nn.Module)]
    for name in names:
        getattr(model, name).compile(options=dict(freezing=True))
    return names


def undo_compile(model: nn.Module) -> None:
    """Run the parts uncompiled again."""
    for name in PARTS:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            part._compiled_call_impl = None
