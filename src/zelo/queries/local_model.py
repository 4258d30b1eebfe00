"""Queries written by a language model on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zelo.config import option
from zelo.data.token_estimate import estimated_tokens
from zelo.judging import prompt
from zelo.judging.estimate import LocalReading, TextLengths
from zelo.models.batching import by_length
from zelo.models.pretrained import PretrainedModel
from zelo.progress import track
from zelo.queries.base import BaseWriter, Draft, SourceDocument, WriterSession, WritingContext
from zelo.queries.language_model import KINDS, check_kinds
from zelo.seeding import derived_seed, stream

LINE = {  # what a small model is asked for, one kind at a time
    "question": "Write one question that this document answers.",
    "keywords": "Write two to six search keywords for which this document should be found.",
    "claim": "Write one statement that this document supports, in other words than its own.",
    "instruction": "Write one sentence that asks to find what this document says.",
}
FRAME = "Document:\n{document}\n\n{wanted} Name its subject. Answer with that one line alone."
EXAMPLES = 3  # of the collection's own queries that one prompt shows
OPENING = 16  # tokens that stay at the beginning of a prompt that is cut
LABELS = ("query:", "question:", "keywords:", "claim:", "statement:", "answer:")  # left out


class LocalModelWriter(BaseWriter):
    """`queries=local`: a causal model that is told what to write, or a sequence-to-sequence model
    that was trained to write queries (doc2query) and is shown the document alone."""

    pretrained: PretrainedModel = option(help="what writes")
    kinds: tuple[str, ...] = option(
        KINDS, "what a model that is told is asked for, drawn anew for each document"
    )
    max_document_tokens: int = option(256, "of each document at most so many are read", ge=16)
    max_new_tokens: int = option(32, "tokens of a query, at most", ge=4)
    temperature: float = option(
        0.7, "of the draws; 0: always the likeliest word, which a seq2seq model writes once", ge=0
    )
    precision: str = option("auto", "auto: as saved", pattern="^(auto|float32|bfloat16|float16)$")
    batch_size: int = option(8, "documents read at once", ge=1)

    def drafts_of_each(self, wanted: int) -> int:
        """One of each kind; a model that was trained to write knows no kinds and may write more."""
        return min(wanted, len(self.kinds))

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """A document in its frame, and the longest query that it may write."""
        frame = estimated_tokens(FRAME) + estimated_tokens(LINE["question"])
        read = frame + lengths.truncated(self.max_document_tokens)
        return LocalReading(self.pretrained, read + self.max_new_tokens)

    def prepare(self, context: WritingContext) -> LocalModelWriterSession:
        """Load the model, on the GPU where there is one."""
        from zelo.models.causal import load_writer

        check_kinds(self.kinds)
        model, tokenizer = load_writer(self.pretrained.locate(), self.precision)
        return LocalModelWriterSession(self, context, model, tokenizer)


class LocalModelWriterSession(WriterSession):
    """The loaded model."""

    def __init__(
        self, writer: LocalModelWriter, context: WritingContext, model: Any, tokenizer: Any
    ) -> None:
        from zelo.models.causal import control_tokens

        self.writer, self.context = writer, context
        self.model, self.tokenizer = model, tokenizer
        self.special = control_tokens(tokenizer)
        self.told = not model.config.is_encoder_decoder

    def write(self, documents: Sequence[SourceDocument]) -> list[list[Draft]]:
        """Drafts of each document; what is read together has similar lengths."""
        asked = [
            (i, kind, ids, derived_seed(self.context.seed, "write", document.doc_id, str(n)))
            for i, document in enumerate(documents)
            for n, (kind, ids) in enumerate(self.prompts(document))
        ]
        texts = [""] * len(asked)
        batches = by_length([len(ids) for _, _, ids, _ in asked], self.writer.batch_size)
        for part in track(list(batches), "writing queries"):
            *_, prompts, seeds = zip(*(asked[a] for a in part), strict=True)
            for a, text in zip(part, self.continued(prompts, seeds), strict=True):
                texts[a] = text
        drafts: list[list[Draft]] = [[] for _ in documents]
        for (i, kind, *_), text in zip(asked, texts, strict=True):
            if query := first_line(text):
                drafts[i].append(Draft(query, kind))
        return drafts

    def prompts(self, document: SourceDocument) -> list[tuple[str, list[int]]]:
        """Kind and token ids of each prompt for a document."""
        per_document = self.context.per_document
        text = self.special.sub(prompt.broken, prompt.clean(document.whole))
        text, _ = prompt.shown(text, self.writer.max_document_tokens)
        if not self.told:
            ids = self.tokenizer.encode(text, truncation=True, max_length=self.longest())
            return [("query", ids)] * per_document
        random = stream(self.context.seed, "write", document.doc_id)
        chosen = random.permutation(len(self.writer.kinds))[:per_document]
        kinds = [self.writer.kinds[i] for i in chosen]
        return [(kind, self.told_ids(text, kind, random)) for kind in kinds]

    def told_ids(self, text: str, kind: str, random: Any) -> list[int]:
        """Token ids of a prompt that says what to write."""
        from zelo.models.causal import as_chat

        examples = self.context.examples
        wanted = LINE[kind] + in_language(self.context.terms.language)
        if examples:
            chosen = random.permutation(len(examples))[:EXAMPLES]
            shown = "; ".join(self.special.sub(prompt.broken, examples[i]) for i in chosen)
            wanted += f" Others have asked: {shown}. Write as they do."
        said = FRAME.format(wanted=wanted, document=text)
        if self.tokenizer.chat_template:
            ids: list[int] = self.tokenizer.encode(
                as_chat(self.tokenizer, [{"role": "user", "content": said}]),
                add_special_tokens=False,
            )
        else:
            ids = self.tokenizer.encode(f"{said}\n\n{kind.capitalize()}:")
        longest = self.longest()
        # What is wanted stands at the end; of the rest the beginning opens the turn.
        return ids if len(ids) <= longest else ids[:OPENING] + ids[len(ids) - longest + OPENING :]

    def longest(self) -> int:
        """Tokens of a prompt that leave room for a query."""
        from zelo.models.loading import usable_length

        room = usable_length(self.model)
        return 4096 if room is None else room - (self.writer.max_new_tokens if self.told else 0)

    def continued(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[str]:
        """What the model writes after each prompt; the draws of each have a seed of their own."""
        import torch

        from zelo.models.causal import drawing, padded

        pad = self.tokenizer.pad_token_id or 0
        # What is told is read from the left, so that every prompt ends where writing begins.
        ids, mask = padded(prompts, pad, "left" if self.told else "right")
        device = self.model.device
        temperature = self.writer.temperature
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self.writer.max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
                logits_processor=drawing(temperature, seeds) if temperature > 0 else None,
            )
        new = out[:, ids.shape[1] :] if self.told else out
        texts: list[str] = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


def in_language(language: str) -> str:
    """What a prompt adds about the language of the collection: nothing for English, the language
    of the prompts."""
    if language == "english":
        return ""
    named = "the language of the document" if language == "none" else language.capitalize()
    return f" Write it in {named}."


def first_line(text: str) -> str:
    """The query in what a model wrote: its first line, without marks and labels around it."""
    lines = [line.strip() for line in prompt.clean(text).splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[0].lstrip("-*•# ").strip("\"'`“”„* ")
    for label in LABELS:
        if line.lower().startswith(label):
            line = line[len(label) :].strip("\"'`“”* ")
    return " ".join(line.split())
