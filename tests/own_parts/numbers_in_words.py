"""A source of data: numbers in words, asked for by one of their words."""

from zelo.artifacts import table
from zelo.config import Component, option
from zelo.data.collection import Collection

ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TENS = ("twenty", "thirty", "forty", "fifty")


class NumbersInWords(Component):
    name: str = option("numbers", "what it is called in reports")
    tens: int = option(4, "how many of twenty, thirty, forty, fifty", ge=1, le=4)

    def fingerprint(self):
        return f"numbers {self.tens}"

    def load(self):
        documents = {f"{ten}-{one}": f"{ten} {one}" for ten in TENS[: self.tens] for one in ONES}
        queries = {f"q-{word}": f"which number has {word}" for word in (*ONES, *TENS)}
        labels = [
            (query_id, doc_id)
            for query_id in queries
            for doc_id in documents
            if query_id.removeprefix("q-") in doc_id.split("-")
        ]
        return Collection(
            name=self.name,
            documents=[
                table(
                    "documents",
                    doc_id=list(documents),
                    title=[""] * len(documents),
                    text=list(documents.values()),
                )
            ],
            queries=table(
                "queries",
                query_id=list(queries),
                text=list(queries.values()),
                split=["test" if i % 3 == 2 else "train" for i in range(len(queries))],
            ),
            qrels=table(
                "qrels",
                query_id=[query_id for query_id, _ in labels],
                doc_id=[doc_id for _, doc_id in labels],
                relevance=[1] * len(labels),
            ),
        )
