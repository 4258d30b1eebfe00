"""A pairwise model: query and documents are one text, and its first token says which is better."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from zelo.models.pairwise import PairwiseNetwork
from zelo.models.pairwise_model import BasePairwiseModel


class FirstTokenNetwork(PairwiseNetwork):
    def __init__(self, folder, max_length):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        from zelo.models.loading import loading

        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.encoder = AutoModel.from_pretrained(str(folder), **loading())
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 1)
        self.max_length = max_length

    def encode(self, triples):
        texts = [f"{q} {self.tokenizer.sep_token} {a} {self.tokenizer.sep_token} {b}"
                 for q, a, b in triples]  # fmt: skip
        return dict(
            self.tokenizer(
                texts,
                max_length=self.max_length,
                truncation=True,
                padding=True,
                return_tensors="pt",
            )
        )

    def forward(self, features):
        return self.head(self.encoder(**features).last_hidden_state[:, 0]).squeeze(1).float()

    def save(self, folder):
        self.encoder.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        save_file(self.head.state_dict(), Path(folder) / "first_token_head.safetensors")


class FirstToken(BasePairwiseModel):
    def network(self):
        return FirstTokenNetwork(self.pretrained.locate(), self.max_length)

    def load(self, folder):
        model = FirstTokenNetwork(folder, self.max_length)
        model.head.load_state_dict(load_file(folder / "first_token_head.safetensors"))
        return model.eval()
