"""Configs that come with a checkpoint: data, never code.

mmengine executes the text of a config. A config in a stranger's file is parsed here instead: assignments of literals,
as ``Config.dump`` writes them, are accepted; anything else is refused, and the error shows the line.
"""

import ast
import io
import json
import keyword
import math
import tokenize
from typing import Any, Dict

MAX_CHARACTERS = 2_000_000
MAX_TOKENS = 300_000  # the largest shipped config has 5,000
MAX_INTEGER = 1 << 63
MAX_NESTING = 48
ALLOWED_OPERATORS = set('=()[]{},:-')
CONSTANTS = {'inf': math.inf, 'nan': math.nan}
TUPLE, ITEMS = '__tuple__', '__items__'  # stand for what JSON does not have


class ConfigTextError(ValueError):
    """A config that is more than assignments of literals; the message names the line."""


def parse_config_text(text: str) -> Dict[str, Any]:
    """Read a config that was written by ``Config.dump``, without executing it.

    Args:
        text (str): Lines such as ``model = dict(type='LiteDINO', num_queries=900)``.

    Returns:
        dict: Values by name.

    Raises:
        ConfigTextError: If it holds anything but assignments of literals.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigTextError(f'the config has {len(text)} characters, more than {MAX_CHARACTERS}')
    lines = text.splitlines()
    _check_tokens(text, lines)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refusal(lines, getattr(error, 'lineno', None) or 1, 'is not a config') from error
    values: Dict[str, Any] = {}
    for statement in tree.body:
        if not (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            raise _refusal(lines, statement.lineno, 'is not an assignment of a literal')
        name = statement.targets[0].id
        if name.startswith('__') or name == '_base_':
            raise _refusal(lines, statement.lineno, f'sets {name}')
        values[name] = _literal(statement.value, lines)
    return values


def _check_tokens(text: str, lines: list) -> None:
    """Refuse tokens that no literal needs, and nesting too deep for the parser."""
    nesting, before = 0, ''
    try:
        for count, token in enumerate(tokenize.generate_tokens(io.StringIO(text).readline)):
            if count > MAX_TOKENS:
                raise _refusal(lines, token.start[0], f'is beyond the {MAX_TOKENS} words that a config may have')
            if token.type == tokenize.OP:
                nesting += (token.string in '([{') - (token.string in ')]}')
                if token.string not in ALLOWED_OPERATORS or (token.string == '-' and before == '-'):
                    raise _refusal(lines, token.start[0], f'holds {token.string!r}')
                if nesting > MAX_NESTING:
                    raise _refusal(lines, token.start[0], 'is nested too deeply')
            elif token.type == tokenize.NAME:
                if keyword.iskeyword(token.string) and token.string not in ('True', 'False', 'None'):
                    raise _refusal(lines, token.start[0], f'holds {token.string!r}')
            elif token.type == tokenize.INDENT:
                raise _refusal(lines, token.start[0], 'is indented')
            before = token.string
    except (tokenize.TokenError, SyntaxError, ValueError) as error:
        if isinstance(error, ConfigTextError):
            raise
        raise _refusal(lines, len(lines), 'is not a config') from error


def _literal(node: ast.AST, lines: list) -> Any:
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (bool, int, float, str)):
        if type(node.value) is int and node.value > MAX_INTEGER:
            raise _refusal(lines, node.lineno, 'holds an integer of more than 64 bits')
        return node.value
    if isinstance(node, ast.Name) and node.id in CONSTANTS:
        return CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, lines)
        if type(value) in (int, float):
            return -value
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_literal(item, lines) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_key(key, lines): _literal(value, lines) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        return _dict_call(node, lines)
    raise _refusal(lines, getattr(node, 'lineno', 1), 'is not a literal')


def _dict_call(node: ast.Call, lines: list) -> dict:
    """``dict(a=1)``, or ``dict({'a': 1})``, as ``Config.dump`` writes keys that are not names."""
    values: dict = {}
    if len(node.args) > 1 or (node.args and not isinstance(node.args[0], ast.Dict)):
        raise _refusal(lines, node.lineno, 'is not a literal')
    if node.args:
        values.update(_literal(node.args[0], lines))
    for item in node.keywords:
        if item.arg is None:
            raise _refusal(lines, node.lineno, 'is not a literal')
        values[item.arg] = _literal(item.value, lines)
    return values


def _key(node: Any, lines: list) -> Any:
    key = _literal(node, lines)
    if isinstance(key, (list, dict)):
        raise _refusal(lines, node.lineno, 'is not a literal')
    return key


def _refusal(lines: list, number: int, fault: str) -> ConfigTextError:
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ''
    return ConfigTextError(f'line {number} {fault}: {line[:120]!r}; a config in a file may hold only literals')


def config_to_json(values: Dict[str, Any]) -> str:
    """A config as JSON; tuples and keys that are not text survive.

    Args:
        values (dict): Values by name, as :func:`parse_config_text` gives them.
    """
    return json.dumps(_encode(values))


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and not {TUPLE, ITEMS} & value.keys():
            return {key: _encode(item) for key, item in value.items()}
        return {ITEMS: [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {TUPLE: [_encode(item) for item in value]}
    return [_encode(item) for item in value] if isinstance(value, list) else value


def config_from_json(text: str) -> Dict[str, Any]:
    """Inverse of :func:`config_to_json`.

    Raises:
        ConfigTextError: If the text is not such a config.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigTextError(f'the config has {len(text)} characters, more than {MAX_CHARACTERS}')
    try:
        values = _decode(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigTextError(f'the config is not the JSON of a published file: {error}') from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigTextError('the config must be a table of values by name')
    return values


def _decode(value: Any, depth: int = 0) -> Any:
    if depth > 2 * MAX_NESTING:
        raise ValueError('it is nested too deeply')
    if isinstance(value, list):
        return [_decode(item, depth + 1) for item in value]
    if type(value) is int and abs(value) > MAX_INTEGER:
        raise ValueError('it holds an integer of more than 64 bits')
    if not isinstance(value, dict):
        return value
    if value.keys() == {TUPLE}:
        return tuple(_decode(item, depth + 1) for item in value[TUPLE])
    if value.keys() == {ITEMS}:
        return {_decode(key, depth + 1): _decode(item, depth + 1) for key, item in value[ITEMS]}
    return {key: _decode(item, depth + 1) for key, item in value.items()}
