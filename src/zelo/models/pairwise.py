"""The pairwise reranker `R_pair(q, d_i, d_j)`: the ensemble, distilled into one small model.

One pass reads `[CLS] q [SEP] a [SEP] b [SEP]`; each segment is mean-pooled and the logit is
`logit_scale · (cos(q, a) − cos(q, b)) + w · ([q∘a] − [q∘b])`, so that an untrained one prefers what
the embedding model it came from prefers. Attention runs over all three, so that order still
matters a little: `preference` averages both orders and is antisymmetric, `p(a, b) = 1 − p(b, a)`.
In a decoder, whose tokens see only what stands before them, the last one sees all three and adds
`v · h_last`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zelo.artifacts import write_json
from zelo.models.packing import PACKING, pack, power_of_2
from zelo.models.segments import mean_pool
from zelo.models.tokens import Chunking, Features, on_device

Triple = tuple[str, str, str]  # query, first document, second document
CHUNKING = Chunking(2048)
ENCODED = ("input_ids", "attention_mask", PACKING)  # features that the encoder takes
HEAD, OPTIONS = "pairwise_head.safetensors", "pairwise.json"


class PairwiseNetwork(nn.Module):
    """What a pairwise model is to those who train and ask it: P(a ≻ b) for triples of texts.

    A subclass has a `tokenizer`, a transformer `encoder` and the four methods below; `preference`
    is the same for all.
    """

    tokenizer: Any
    encoder: Any

    def encode(self, triples: Sequence[Triple]) -> dict[str, Tensor]:
        """Padded features (triples, length) of the texts, `attention_mask` among them."""
        raise NotImplementedError

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (triples,) float32 of the first document being preferred, in the order shown."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        raise NotImplementedError

    @torch.inference_mode()
    def preference(self, triples: Sequence[Triple], chunking: Chunking = CHUNKING) -> Tensor:
        """P(a ≻ b) (triples,) float32, the mean of both orders."""
        if not triples:
            return torch.zeros(0)
        device = next(self.parameters()).device
        features = self.encode([*triples, *((q, b, a) for q, a, b in triples)])
        lengths = features["attention_mask"].sum(1)
        chunks = chunking.chunks(lengths.tolist())
        found = []
        for rows in chunks:
            own = lengths[rows].tolist()
            chunk: Features = {k: v[rows, : max(own)] for k, v in features.items()}
            if chunking.packed:
                longest = features["attention_mask"].shape[1] if chunking.fixed else 0
                chunk[PACKING] = pack(
                    own, max(own), size=chunking.size(sum(own)), longest=power_of_2(longest)
                )
            found.append(torch.sigmoid(self(on_device(chunk, device))).float())
        p = torch.empty(len(lengths))
        p[[i for rows in chunks for i in rows]] = torch.cat(found).cpu()
        forth, back = p.chunk(2)
        preference: Tensor = (forth + 1 - back) / 2
        return preference


class PairwiseCrossEncoder(PairwiseNetwork):
    """Logit of P(a ≻ b) for triples of texts."""

    def __init__(
        self, folder: Path, max_query_length: int, max_length: int, logit_scale: float = 6.0
    ):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        from zelo.models.loading import (
            cut_to,
            loaded_from,
            loading,
            prepare_libraries,
            usable_length,
            with_padding,
            with_words,
            without_cache,
        )

        prepare_libraries()
        with loaded_from(folder):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            with_words(self.tokenizer)
            self.encoder: Any = AutoModel.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True, **loading()
            ).float()
        with_padding(self.tokenizer, self.encoder)
        without_cache(self.encoder)
        most = usable_length(self.encoder)
        self.max_length = cut_to(max_length, most, folder) or max_length
        # Of each document a token is seen, and of the separators there are four.
        self.max_query_length = min(
            max_query_length, max_query_length if most is None else most - 6
        )
        self.logit_scale = logit_scale
        # A decoder has neither [CLS] nor [SEP]: its end of text parts the segments.
        self.start, self.end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        decoder = self.end is None
        if decoder:
            self.end = self.tokenizer.eos_token_id
        width = self.encoder.config.hidden_size
        self.head = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.head.weight, std=1e-3)
        self.last = nn.Linear(width, 1, bias=False) if decoder else None
        if self.last is not None:
            nn.init.normal_(self.last.weight, std=1e-3)

    def encode(self, triples: Sequence[Triple]) -> dict[str, Tensor]:
        """Token ids, mask, segments (1 query, 2 first, 3 second, 0 none), each (triples, length).

        The query is cut to `max_query_length` and each document to half of what `max_length`
        leaves, so that both documents are always seen.
        """
        start = [] if self.start is None else [self.start]
        columns = [
            self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
            for texts in zip(*triples, strict=True)
        ]
        ids: list[list[int]] = []
        segments: list[list[int]] = []
        for q, a, b in zip(*columns, strict=True):
            q = q[: self.max_query_length]
            room = max((self.max_length - len(q) - 4) // 2, 1)
            a, b = a[:room], b[:room]
            ids.append([*start, *q, self.end, *a, self.end, *b, self.end])
            sizes = (len(start) + len(q) + 1, len(a) + 1, len(b) + 1)
            segments.append([part for part, n in enumerate(sizes, 1) for _ in range(n)])
        length = max(map(len, ids))
        pad = self.tokenizer.pad_token_id or 0
        padded = [row + [pad] * (length - len(row)) for row in ids]
        marked = [row + [0] * (length - len(row)) for row in segments]
        segment = torch.tensor(marked)
        return {
            "input_ids": torch.tensor(padded),
            "attention_mask": (segment > 0).long(),
            "segment": segment,
        }

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (triples,) float32 of the first document being preferred, in the order shown."""
        segment = features["segment"]
        read = {name: features[name] for name in ENCODED if name in features}
        tokens = self.encoder(**read).last_hidden_state.float()
        with torch.autocast(tokens.device.type, enabled=False):
            return self.compare(tokens, segment)

    def compare(self, tokens: Tensor, segment: Tensor) -> Tensor:
        """Logits (triples,) of token embeddings (triples, length, width) and their segments."""
        q, a, b = (mean_pool(tokens, segment == part) for part in (1, 2, 3))
        difference = F.cosine_similarity(q, a) - F.cosine_similarity(q, b)
        logits: Tensor = self.logit_scale * difference + self.head(q * a - q * b).squeeze(1)
        if self.last is not None:
            position = torch.arange(segment.shape[1], device=segment.device)
            end = torch.where(segment > 0, position, 0).argmax(1)
            logits = logits + self.last(tokens[torch.arange(len(end)), end]).squeeze(1)
        return logits

    def save(self, folder: Path) -> None:
        """Write the encoder, the tokenizer, the head and the options."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        save_file(self.heads(), folder / HEAD)
        write_json(
            folder / OPTIONS,
            {
                "max_query_length": self.max_query_length,
                "max_length": self.max_length,
                "logit_scale": self.logit_scale,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        model = cls(folder, **json.loads((folder / OPTIONS).read_text(encoding="utf-8")))
        for name, value in load_file(folder / HEAD).items():
            model.heads()[name].copy_(value)
        return model.eval()

    def heads(self) -> dict[str, Tensor]:
        """Weights of what stands on the encoder."""
        last = {} if self.last is None else {"last": self.last.weight.data}
        return {"weight": self.head.weight.data, **last}
