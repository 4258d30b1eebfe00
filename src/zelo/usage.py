"""What `zelo --help` and `zelo rate` print."""

from __future__ import annotations

HELP = """\
zelo: train rerankers and embedding models without labels

usage:
  zelo run [GROUP=OPTION ...] [GROUP.KEY=VALUE ...]   run every stage that has not run yet
  zelo run -m GROUP=OPTION,OPTION KEY=VALUE,VALUE     sweep over all combinations
  zelo run stages=[rate,train]                        run some stages only
  zelo run --help                                     groups and options that there are
  zelo run --cfg job                                  print a configuration without running it
  zelo plan [GROUP=OPTION ...] [GROUP.KEY=VALUE ...]  what a run will ask, cost and take
  zelo evaluate [reranker=[OPTION,...]] [KEY=VALUE]   rerankers side by side on one collection
  zelo compare SWEEP [csv=FILE] [plot=FILE.png]       a sweep's runs: mean and interval over seeds
  zelo compare RUN RUN ... qrels=FILE                 TREC runs side by side: table, tests, figure
  zelo table FOLDER FOLDER ... [baseline=SYSTEM]      several collections, domains and averages
  zelo rerank --model DIR --query TEXT FILE           order documents (lines or JSON lines)
  zelo audit LOG.jsonl [judge=OPTION] [budget.usd=..] how good a live system's results are
  zelo data describe data=OPTION [KEY=VALUE ...]      what a collection holds, and what looks wrong
  zelo rate FILE [rating=OPTION] [KEY=VALUE ...]      Elos of a Parquet or JSONL file of comparisons
  zelo inspect RUN --query ID                         one query: documents, Elos, what judges said
  zelo reproduce RUN [home=FOLDER] [trust=true]       run a manifest again and say what differs
  zelo publish RUN|MODEL repo=OWNER/NAME [private=..] a trained model on the Hugging Face Hub
  zelo import FILE|FOLDER out=FOLDER                  a zbench data set or annotation, as BEIR
  zelo export RUN out=FOLDER                          what a run annotated, as zbench's files
  zelo --version

examples:
  zelo run experiment=quickstart                      built-in data, an embedding model, minutes
  zelo run experiment=quickstart_reranker             the same with a cross-encoder
  zelo run data=beir data.path=FOLDER                 your own queries and documents
"""


RATE_HELP = """\
zelo rate: Elos of the documents of a file of comparisons

usage:
  zelo rate FILE [out=FOLDER] [rating=thurstone|bradley_terry] [rating.KEY=VALUE] [vote=soft|sign]

A row of FILE, Parquet or JSON lines, is one comparison: query_id, doc_a, doc_b and either
p in [0, 1], the preference for doc_a, or score in [-1, 1], -1 for doc_a; null is no answer.
weight and judge are read where they are given; doc_a is the document that was shown first.
ratings.parquet, fits.parquet and judges.parquet are written to FILE's name + .ratings.

options:
  rating.prior=0.05          precision of the Gaussian prior on an Elo
  rating.target=centred      centred, cdf or minmax: the training target
  rating.joint_judges=true   fit each judge's position bias and discrimination as well
"""
