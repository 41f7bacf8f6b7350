"""A random text encoder in the place of BERT, which would have to be downloaded."""

import re
from types import SimpleNamespace
from typing import List, Sequence

import torch
from mmdet.registry import MODELS
from torch import nn
from torch.nn.utils.rnn import pad_sequence

VOCABULARY = 64


class Tokens(SimpleNamespace):
    """What a tokenizer of transformers returns, as far as mmdet needs it."""

    def char_to_token(self, position: int):
        found = [index for index, (start, end) in enumerate(self.spans) if start <= position < end]
        return found[0] if found else None


def tokenize(captions: Sequence[str], **kwargs) -> Tokens:
    """Words and full stops as tokens; ``spans`` are those of the first caption."""
    words: List[list] = [list(re.finditer(r'\w+|\.', caption)) for caption in captions]
    ids = [torch.tensor([2 + sum(match.group().encode()) % (VOCABULARY - 2) for match in line]) for line in words]
    for line, row in zip(words, ids):
        row[[match.group() == '.' for match in line]] = 1
    return Tokens(input_ids=pad_sequence(ids, batch_first=True), spans=[match.span() for match in words[0]])


@MODELS.register_module(force=True)
class RandomLanguageModel(nn.Module):
    """Embeddings of words; 0 is padding and 1 is the full stop, between which phrases stand."""

    def __init__(self, language_dim: int = 16, pad_to_max: bool = False) -> None:
        super().__init__()
        self.tokenizer = tokenize
        self.pad_to_max = pad_to_max
        self.language_backbone = nn.Module()
        self.language_backbone.body = nn.Embedding(VOCABULARY, language_dim)
        self.language_backbone.body.language_dim = language_dim

    def forward(self, captions: Sequence[str]) -> dict:
        ids = self.tokenizer(captions).input_ids
        phrase = (ids == 1).cumsum(1) - (ids == 1).long()  # a full stop ends its phrase
        position = torch.arange(ids.shape[1]).expand_as(ids)
        start = torch.stack([(phrase < phrase[:, [index]]).sum(1) for index in range(ids.shape[1])], dim=1)
        return dict(
            embedded=self.language_backbone.body(ids),
            masks=phrase[:, :, None] == phrase[:, None, :],
            position_ids=position - start,
            text_token_mask=ids > 0,
        )
