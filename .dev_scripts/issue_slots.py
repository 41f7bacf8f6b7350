"""Count the issue slots of a CUDA kernel in its disassembly: the instructions that a warp executes.

A kernel's instructions are cut into blocks, its loops found, and what is counted is the longest path through the body
of a loop, an inner loop taken as often as its caller says. So the count is the most that a warp executes where all of
its lanes take the same branches, as they do in these kernels but for the stores at the end of a query.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Callable, Dict, FrozenSet, List, Optional

INSTRUCTION = re.compile(r'^\s*/\*[0-9a-f]{4,}\*/\s+(?:(?P<guard>@!?U?P\w+)\s+)?(?P<text>[A-Z][^;]*?)\s*(?:;.*)?$')
LABEL = re.compile(r'^(\.L_x_\d+):')
TARGET = re.compile(r'`\((\.L_x_\d+)\)')
# Ends a path: nothing behind it is executed.
LEAVING = ('EXIT', 'RET', 'BPT', 'KILL')


@dataclass
class Block:
    """Instructions that are executed one after the other, and the blocks that may come next."""

    instructions: List[str] = field(default_factory=list)
    next: List[int] = field(default_factory=list)


def split_functions(disassembly: str) -> Dict[str, List[str]]:
    """Lines of each kernel by its mangled name, from the output of ``nvdisasm -c``."""
    functions: Dict[str, List[str]] = {}
    lines: Optional[List[str]] = None
    for line in disassembly.splitlines():
        if line.startswith('.text.'):
            lines = functions.setdefault(line[len('.text.') :].rstrip(':'), [])
        elif line.lstrip().startswith('.section'):
            lines = None
        elif lines is not None:
            lines.append(line)
    return functions


def split_blocks(lines: List[str]) -> List[Block]:
    """The control flow of a function."""
    blocks, labels, targets = [Block()], {}, []
    for line in lines:
        label = LABEL.match(line)
        if label:
            if blocks[-1].instructions:
                blocks.append(Block())
                targets.append(([], True))
            labels[label.group(1)] = len(blocks) - 1
            continue
        found = INSTRUCTION.match(line)
        if not found:
            continue
        text, guard = found.group('text'), found.group('guard')
        name = text.split()[0]
        blocks[-1].instructions.append(text)
        opcode = name.split('.')[0]
        # BRA.DIV leads to what handles a diverged warp before a barrier, which costs nothing where it has not.
        if opcode in ('BRA', 'BRX', 'JMP') and not name.startswith('BRA.DIV'):
            listed = re.search(r'BRANCH_TARGETS ([^"]*)"', line)
            to = listed.group(1).split(',') if listed else TARGET.findall(text)
            conditional = guard is not None or re.search(r'BRA\S*\s+!?U?P\d', text) is not None
            targets.append((to, conditional))
            blocks.append(Block())
        elif opcode in LEAVING:
            targets.append(([], guard is not None))
            blocks.append(Block())
    targets.append(([], False))
    for index, (to, falls_through) in enumerate(targets):
        blocks[index].next = [labels[name] for name in to if name in labels]
        if falls_through and index + 1 < len(blocks):
            blocks[index].next.append(index + 1)
    return blocks


def predecessors(blocks: List[Block]) -> Dict[int, List[int]]:
    """The blocks that lead to each block; only of those that the first block leads to."""
    result: Dict[int, List[int]] = {0: []}
    stack = [0]
    while stack:
        index = stack.pop()
        for after in blocks[index].next:
            if after not in result:
                result[after] = []
                stack.append(after)
            result[after].append(index)
    return result


def dominators(blocks: List[Block]) -> List[FrozenSet[int]]:
    """For each block that the first one leads to, the blocks on every path to it."""
    before = predecessors(blocks)
    result = [frozenset(before)] * len(blocks)
    result[0] = frozenset([0])
    changed = True
    while changed:
        changed = False
        for index in sorted(before.keys() - {0}):
            new = frozenset.intersection(*(result[i] for i in before[index])) | {index}
            if new != result[index]:
                result[index], changed = new, True
    return result


@dataclass
class Loop:
    """A loop: its first block, all of its blocks, and the loops directly inside."""

    head: int
    blocks: FrozenSet[int]
    inner: List['Loop'] = field(default_factory=list)


def find_loops(blocks: List[Block]) -> List[Loop]:
    """The outermost loops, with those inside them."""
    dominated, before = dominators(blocks), predecessors(blocks)
    bodies: Dict[int, set] = {}
    for index in before:
        for head in blocks[index].next:
            if head in dominated[index]:  # a jump back
                body, stack = bodies.setdefault(head, {head}), [index]
                while stack:
                    member = stack.pop()
                    if member not in body:
                        body.add(member)
                        stack += before[member]
    loops = sorted((Loop(head, frozenset(body)) for head, body in bodies.items()), key=lambda loop: len(loop.blocks))
    outermost = []
    for index, loop in enumerate(loops):
        parent = next((other for other in loops[index + 1 :] if loop.blocks < other.blocks), None)
        (parent.inner if parent else outermost).append(loop)
    return outermost


class Kernel:
    """A disassembled kernel."""

    def __init__(self, lines: List[str]) -> None:
        self.blocks = split_blocks(lines)
        self.loops = find_loops(self.blocks)

    def all_loops(self) -> List[Loop]:
        result, stack = [], list(self.loops)
        while stack:
            loop = stack.pop()
            result.append(loop)
            stack += loop.inner
        return result

    def count(self, loop: Loop, trips: Callable[[Loop], float] = lambda loop: 1) -> float:
        """Instructions on the longest path through one iteration of ``loop``.

        Args:
            loop (Loop): The loop.
            trips (Callable): How often an inner loop is run each time it is reached.
        """
        inner: Dict[int, Loop] = {block: part for part in loop.inner for block in part.blocks}
        cost = {part.head: trips(part) * self.count(part, trips) for part in loop.inner}

        @cache
        def walk(block: int) -> float:
            part = inner.get(block)
            if part is None:
                own = float(len(self.blocks[block].instructions))
                after = self.blocks[block].next
            else:
                own = cost[part.head]
                after = [to for member in part.blocks for to in self.blocks[member].next if to not in part.blocks]
            following = [walk(to) for to in set(after) if to in loop.blocks and to != loop.head]
            return own + max(following, default=0.0)

        return walk(loop.head)

    def contains(self, loop: Loop, pattern: str) -> int:
        """Instructions of the loop that begin with ``pattern``, inner loops included, wherever they are."""
        return sum(bool(re.match(pattern, text)) for block in loop.blocks for text in self.blocks[block].instructions)

    def innermost(self, pattern: str, least: int = 1) -> Optional[Loop]:
        """The smallest loop with at least this many instructions that begin with ``pattern``."""
        loops = [loop for loop in self.all_loops() if self.contains(loop, pattern) >= least]
        return min(loops, key=lambda loop: len(loop.blocks), default=None)

    def around(self, loop: Loop) -> Optional[Loop]:
        """The loop directly around another one."""
        return next((other for other in self.all_loops() if loop in other.inner), None)
