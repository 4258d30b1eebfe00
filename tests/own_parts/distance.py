"""A kind of model: embeddings that lie near one another, by Euclid."""

from zelo.config import option
from zelo.training.batches import ScoredBatch
from zelo.training.pointwise import PointwiseModule
from zelo.training.tokenized import BiEncoderInputs
from zelo.training.trainable import TrainableModel


class Distance(TrainableModel):
    lightning_module = "distance.DistanceModule"
    kind: str = option("distance model", "what it is called in reports", exclude=True)

    def network(self):
        return self.open(self.pretrained.locate(), self.training_length)

    def tokenized_inputs(self):
        return BiEncoderInputs

    def score(
        self, folder, queries, documents, candidates, out, trainer, max_tokens_per_forward=None
    ):
        model = self.open(folder or self.pretrained.locate(), self.max_length)
        scores = {}
        for query_id, doc_ids in candidates.items():
            q = model.encode_query([queries[query_id]])
            d = model.encode_document([documents[doc_id] for doc_id in doc_ids])
            scores[query_id] = model.similarity(q, d)[0].tolist()
        return scores

    @staticmethod
    def open(folder, max_length):
        from zelo.models.embedding import load_embedding_model

        model = load_embedding_model(folder, max_length)
        model.similarity_fn_name = "euclidean"  # the shipped folder says so too
        return model


class DistanceModule(PointwiseModule):
    def predict(self, batch: ScoredBatch):
        q, d = (
            batch.inputs[side].apply(lambda chunk: self.model(chunk)["sentence_embedding"])
            for side in ("queries", "documents")
        )
        scores = -(q[:, None] - d[batch.document_index]).square().sum(-1).add(1e-12).sqrt()
        return [(scores, None)]

    def save_pretrained(self, folder):
        self.model.eval().save_pretrained(str(folder), create_model_card=False)
