"""What an inspection finds, and how it is told."""

from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple

from ...text import printable

ERROR, WARNING, NOTE = 'error', 'warning', 'note'

# Each kind of finding: how bad it is, and the remedy.
KINDS: Dict[str, tuple] = {
    'annotation-file': (ERROR, 'fix the path (data_root, ann_file) or the file'),
    'class-names': (ERROR, 'write the names in metainfo.classes as the annotation file has them'),
    'classes-not-a-list': (ERROR, "write metainfo.classes as a tuple with a comma: ('bolt',)"),
    'num-classes': (ERROR, 'set num_classes of the head to the number of classes'),
    'unknown-category': (ERROR, 'add the category to the file, or correct category_id'),
    'unknown-image': (ERROR, 'remove the annotations, or add the image to the list'),
    'duplicate-id': (ERROR, 'number images, annotations and categories anew'),
    'missing-image': (ERROR, 'add the file, correct data_prefix.img, or remove the image from the list'),
    'unreadable-image': (ERROR, 'replace the file, or remove the image from the list'),
    'bad-number': (ERROR, 'remove the box'),
    'empty-box': (ERROR, 'remove the box: it has no area'),
    'box-outside': (ERROR, 'remove the box: it lies outside of its image'),
    'too-many-objects': (ERROR, 'raise model.num_queries above the number of objects in an image'),
    'leakage': (ERROR, 'remove the image from one of the splits'),
    'image-size': (WARNING, 'correct width and height in the file; boxes may belong to another size or to a rotation'),
    'box-leaves-image': (WARNING, 'clip the box'),
    'duplicate-box': (WARNING, 'remove one of the boxes'),
    'duplicate-image': (WARNING, 'remove one of the images'),
    'unused-category': (WARNING, 'add the name to metainfo.classes if it is to be found'),
    'class-without-objects': (WARNING, 'add objects of the class, or take it out of metainfo.classes'),
    'vanishing-object': (WARNING, 'train with larger images: after resizing the object is narrower than a pixel'),
    'palette': (WARNING, 'give metainfo.palette a color for each class, or leave it out'),
    'image-without-objects': (NOTE, 'nothing, if it is background on purpose'),
}
SHOWN = 5  # places of a kind


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        kind (str): A key of ``KINDS``.
        where (str): File, and image or annotation id.
        what (str): What was expected and what is there.
    """

    kind: str
    where: str
    what: str

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        return KINDS[self.kind][1]


@dataclass
class Report:
    """All findings of an inspection, with a line on each split."""

    findings: List[Finding] = field(default_factory=list)
    summaries: List[str] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == ERROR for finding in self.findings)

    def of_kind(self, kind: str) -> List[Finding]:
        """Findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def format(self, shown: int = SHOWN) -> str:
        """Text for a terminal: what is there, then each kind of finding, errors first.

        Args:
            shown (int): Places that are listed of each kind. Defaults to 5.
        """
        lines = list(self.summaries)
        for severity in (ERROR, WARNING, NOTE):
            for kind, (of_kind, remedy) in KINDS.items():
                found = self.of_kind(kind)
                if of_kind != severity or not found:
                    continue
                lines += ['', f'{severity}: {kind} ({len(found)}): {remedy}']
                lines += [f'  {finding.where}: {finding.what}' for finding in found[:shown]]
                if len(found) > shown:
                    lines.append(f'  ... and {len(found) - shown} more')
        counts = {level: sum(f.severity == level for f in self.findings) for level in (ERROR, WARNING, NOTE)}
        lines += ['', ', '.join(f'{count} {level}{"" if count == 1 else "s"}' for level, count in counts.items())]
        return '\n'.join(map(printable, lines))
