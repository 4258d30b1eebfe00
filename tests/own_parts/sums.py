"""A writer of queries: what one more than the number in a document is."""

from zelo.config import option
from zelo.queries.base import BaseWriter, Draft, WriterSession


class Sums(BaseWriter):
    more: str = option("one", "what is added")

    def prepare(self, context):
        return SumsSession(self.more)


class SumsSession(WriterSession):
    def __init__(self, more):
        self.more = more

    def write(self, documents):
        return [[Draft(f"{doc.text} and {self.more} more", "sum")] for doc in documents]
