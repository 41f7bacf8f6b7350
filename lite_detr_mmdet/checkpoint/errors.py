"""The error for files that cannot be trusted or used as checkpoints."""

from pathlib import Path
from typing import Union

from ..text import printable


class CheckpointError(ValueError):
    """A checkpoint that is refused or damaged; the message names the file and says what is wrong with it.

    Attributes:
        path (str): The file.
        fault (str): What is wrong with it, in a sentence.
    """

    def __init__(self, path: Union[str, Path], fault: str) -> None:
        self.path = str(path)
        self.fault = printable(fault)  # it may quote the file
        super().__init__(f'{printable(path)} {self.fault}')


class Fault(ValueError):
    """What is wrong with the contents being read; the reader adds the name of the file."""


class Refusal(Fault):
    """Contents that ask for more than tensors and plain values."""
