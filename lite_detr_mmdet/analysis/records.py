"""What a benchmark writes and a table is made from: one typed record for each run of a benchmark."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from ..output_files import prepare_output, write_text


@dataclass(frozen=True)
class Environment:
    """What a reader must know to repeat a measurement.

    Attributes:
        date (str): Date and time in UTC, ISO 8601.
        commit (str): Commit of what was measured; 'with changes' follows where it was changed.
        command (str): The command line.
        device (str): 'cpu' or 'cuda': what was measured.
        cpu (str): Name of the processor and number of its cores.
        threads (int): CPU threads of torch.
        load_average (float): Of the minute before.
        versions (dict[str, str]): Of Python and of the packages that matter.
        allocator (dict[str, str]): Environment variables that change how memory is allocated; empty for glibc's
            defaults.
        instruction_set (str, optional): That of the operator on the CPU.
        gpu (str, optional): Name of the GPU that was measured.
    """

    date: str
    commit: str
    command: str
    device: str
    cpu: str
    threads: int
    load_average: float
    versions: Dict[str, str]
    allocator: Dict[str, str] = field(default_factory=dict)
    instruction_set: Optional[str] = None
    gpu: Optional[str] = None

    def lines(self) -> List[str]:
        """A line of Markdown for each field."""
        content = {
            **asdict(self),
            'versions': ', '.join(f'{name} {version}' for name, version in self.versions.items()),
        }
        content['allocator'] = ', '.join(f'{k}={v}' for k, v in self.allocator.items()) or 'glibc defaults'
        return [f'- {name}: {value}' for name, value in content.items() if value is not None]


@dataclass(frozen=True)
class Record:
    """One run of a benchmark.

    Attributes:
        benchmark (str): Name of the script in ``benchmarks``, without its suffix.
        environment (Environment): Where and how it ran.
        results (list | dict): What was measured, in a form of the benchmark's own.
        shape (tuple[int, int], optional): Height and width of the images in pixels.
        batch_size (int, optional): Number of images.
        dtype (str, optional): Name of torch's dtype.
        repeat (int, optional): Number of timed rounds.
        settings (dict): What was asked for beyond the benchmark's defaults, e.g. a compiled encoder.
    """

    benchmark: str
    environment: Environment
    results: Union[list, dict]
    shape: Optional[Tuple[int, int]] = None
    batch_size: Optional[int] = None
    dtype: Optional[str] = None
    repeat: Optional[int] = None
    settings: Dict[str, Any] = field(default_factory=dict)

    def lines(self) -> List[str]:
        """A line of Markdown for each field but the results."""
        lines = self.environment.lines()
        if self.shape:
            lines.append(f'- input: {self.batch_size}x3x{self.shape[0]}x{self.shape[1]}, {self.dtype}')
        if self.repeat:
            lines.append(f'- repeat: {self.repeat}')
        return lines + [f'- {name}: {value}' for name, value in self.settings.items()]

    def write(self, path: Union[str, Path]) -> None:
        """Write the record as JSON; the file is there completely or not at all."""
        write_text(json.dumps(asdict(self), indent=1) + '\n', prepare_output(path))

    def write_pair(self, out: Union[str, Path], page: str) -> None:
        """Write the record as ``out``.json and ``page``, its table for readers, as ``out``.md."""
        self.write(f'{out}.json')
        write_text(page + '\n', f'{out}.md')

    @classmethod
    def from_dict(cls, content: dict) -> 'Record':
        """The record that :meth:`write` wrote.

        Raises:
            ValueError: If fields are missing, or there are others.
        """
        content = {**content, 'environment': _make(Environment, content.get('environment', {}))}
        if content.get('shape'):
            content['shape'] = tuple(content['shape'])
        return _make(cls, content)


def _make(cls: type, content: dict) -> Any:
    names = {item.name for item in fields(cls)}
    try:
        return cls(**content)
    except TypeError as error:
        raise ValueError(f'a {cls.__name__} has the fields {", ".join(sorted(names))}: {error}') from error


def read_records(folder: Union[str, Path], benchmark: str) -> Dict[Path, Record]:
    """All records of a benchmark below a folder, by their files.

    Args:
        folder (str | Path): The folder, e.g. ``benchmarks/results``.
        benchmark (str): Name of the benchmark. Files of others are left alone.

    Raises:
        ValueError: If a file of the benchmark is no record; the message names it.
    """
    records = {}
    for path in sorted(Path(folder).rglob('*.json')):
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get('benchmark') != benchmark:
            continue
        try:
            records[path] = Record.from_dict(content)
        except ValueError as error:
            raise ValueError(f'{path} is no record of benchmarks/{benchmark}.py: {error}') from error
    return records
