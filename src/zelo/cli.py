"""The `zelo` command: what its words mean, and how it ends."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import zelo
from zelo import commands
from zelo.errors import UserError, crashed, of_the_system
from zelo.launch import GOES_ON

NOTHING = "nothing was written"

EXAMPLES = """\
examples:
  zelo run experiment=quickstart                built-in data, an embedding model, minutes
  zelo run experiment=quickstart_reranker       the same with a cross-encoder
  zelo run experiment=bare_corpus data.path=DIR documents alone, no query, no label
  zelo run data=beir data.path=FOLDER           your own queries and documents
  zelo run -m GROUP=OPTION,OPTION KEY=VALUE     a sweep over all combinations
  zelo run stages=[rate,train]                  some stages only
  zelo run --cfg job                            print a configuration without running it

zelo COMMAND --help is about each; zelo run --help has all groups and options.
"""

ROWS_TO_RATE = """\
A row of FILE, Parquet or JSON lines, is one comparison: query_id, doc_a, doc_b and either
p in [0, 1], the preference for doc_a, or score in [-1, 1], -1 for doc_a; null is no answer.
weight and judge are read where they are given; doc_a is the document that was shown first.
ratings.parquet, fits.parquet and judges.parquet are written to FILE's name + .ratings.

options:
  out=FOLDER                 where the tables go
  vote=soft|sign             whether the strength of an answer counts
  rating=thurstone|bradley_terry
  rating.prior=0.05          precision of the Gaussian prior on an Elo
  rating.target=centred      centred, cdf or minmax: the training target
  rating.joint_judges=true   fit each judge's position bias and discrimination as well
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 a bug, or a run that came out otherwise, 2 a mistake that
    the user can mend, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no error
            stream.reconfigure(errors="backslashreplace")
    # A batch queue (which may warn before it kills), a terminal that is closed.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    when_interrupted = NOTHING
    try:
        try:
            given = parsed(words or ["--help"])
            when_interrupted = given.when_interrupted
            sys.exit(given.command(given) or 0)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # its reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {when_interrupted}", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"error: {of_the_system(error)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        traceback.print_exc()
        print(crashed(error, shlex.join(["zelo", *words])), file=sys.stderr)
        sys.exit(1)


class CommandParser(ArgumentParser):
    """The words of one command. A mistake in them is a `UserError`.

    Where Hydra configures the command, its words are kept as `overrides`, as they are: they may
    look like options (`-m`) or mean something to Hydra alone (`~key`, `+key=value`). In front of
    them there may be a `file`. Options of other commands can be written `key=value` as well.
    """

    def __init__(self, configured: bool = False, file: str | None = None, **settings: Any) -> None:
        form = partial(RawDescriptionHelpFormatter, max_help_position=28)
        super().__init__(allow_abbrev=False, formatter_class=form, **settings)
        self.configured, self.file = configured, file
        self.settings: list[str] = []
        if file is not None:
            self.add_argument("file", metavar=file)
        if configured:
            self.add_argument(
                "overrides", nargs="*", metavar="GROUP=OPTION | KEY=VALUE",
                help="`zelo run --help` has the groups and options of a run",
            )  # fmt: skip

    def add_setting(self, name: str, **settings: Any) -> None:
        """Add the option `--name VALUE`, which can be written `name=VALUE`."""
        self.add_argument(f"--{name}", **settings)
        self.settings.append(name)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """Read the words behind the command's name."""
        words, given = list(args or []), namespace or Namespace()
        if not self.configured:
            # Settings first: they may stand between two paths.
            words.sort(key=lambda word: not self.sets_option(word))
            return super().parse_known_args([self.spelt_out(word) for word in words], given)
        if self.add_help and words[-1:] in (["-h"], ["--help"]):
            self.print_help()
            self.exit()
        if self.file is not None:
            if not words or words[0].startswith("-") or is_setting(words[0]):
                self.error(f"{self.file} is missing")
            given.file = words.pop(0)
        given.overrides = words
        for name in ("command", "when_interrupted"):
            setattr(given, name, self.get_default(name))
        return given, []

    def spelt_out(self, word: str) -> str:
        """`--key=value` for `key=value`; `UserError` where there is no such option."""
        if not self.sets_option(word):
            return word
        key = word.partition("=")[0]
        if key not in self.settings:
            raise UserError(f"{key}: no such option; there are {', '.join(self.settings)}")
        return f"--{word}"

    def sets_option(self, word: str) -> bool:
        """Whether a word is `key=value`, and this command has options that are written so."""
        return bool(self.settings) and word.partition("=")[0].isidentifier() and is_setting(word)

    def error(self, message: str) -> NoReturn:
        """Raise `UserError`."""
        raise UserError(f"{message}; {' '.join(self.format_usage().split())}")


def is_setting(word: str) -> bool:
    """Whether a word sets an option, and names no file."""
    return "=" in word and not Path(word).exists()


def parsed(words: Sequence[str]) -> Namespace:
    """What the words of the command say: what to call (`command`), and with what.

    Raises `UserError`.
    """
    parser = CommandParser(
        prog="zelo",
        description="Train rerankers and embedding models without labels.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"zelo {zelo.__version__}")
    group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str,
        call: Callable[[Namespace], int | None],
        summary: str,
        when_interrupted: str = NOTHING,
        within: Any = group,
        **settings: Any,
    ) -> CommandParser:
        made: CommandParser = within.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", **settings
        )
        made.set_defaults(command=call, when_interrupted=when_interrupted)
        return made

    command(
        "run", commands.run, "run every stage that has not run yet; -m sweeps over options",
        GOES_ON, configured=True, add_help=False,
    )  # fmt: skip
    command(
        "plan", commands.plan, "what a run will ask, cost and take; calls nothing", configured=True
    )
    command(
        "evaluate", commands.evaluate, "rerankers side by side on one collection", GOES_ON,
        configured=True,
        epilog="examples:\n  zelo evaluate data=scifact reranker=[start,zelo]\n"
        "  zelo evaluate suite=nanobeir retriever=dense pretrained.path=FOLDER (or beir, mteb;\n"
        "    suite.path=FOLDER: copies; suite.only=[NanoSciFact,NanoNQ])",
    )  # fmt: skip
    compare = command(
        "compare", commands.compare, "runs of sweeps side by side, or TREC runs by labels"
    )
    compare.add_argument("paths", nargs="+", metavar="PATH", help="sweeps and runs, or TREC runs")
    compare.add_setting("qrels", metavar="FILE", help="labels: the paths are TREC runs")
    compare.add_setting("order", metavar="rank|score", help="what orders the lines of a TREC run")
    compare.add_setting("metric", metavar="NAME,...", help="measures of a sweep: zelo/NDCG@10")
    compare.add_setting("csv", metavar="FILE", help="write the table of a sweep")
    compare.add_setting("plot", metavar="FILE.png", help="draw it")
    table = command(
        "table", commands.table, "evaluations of several collections, by domain and on average"
    )
    table.add_argument("folders", nargs="*", metavar="FOLDER", help="of zelo evaluate")
    table.add_setting(
        "baseline", default="", metavar="SYSTEM", help="the first stage, if not named"
    )
    table.add_setting("metric", default="NDCG@10", metavar="NAME", help="%(default)s")
    table.add_setting("csv", default="", metavar="FILE", help="write the table")
    rerank = command("rerank", commands.rerank, "order documents by a model, as JSON lines")
    rerank.add_argument(
        "--model", type=Path, required=True, help="folder of a reranker or embedding model"
    )
    rerank.add_argument("--query", required=True)
    rerank.add_argument(
        "--instruction",
        default="",
        help="what makes a document relevant, for a model that reads it",
    )
    rerank.add_argument("--top", type=int, help="so many, the best")
    rerank.add_argument(
        "--weight", type=float, metavar="SHARE",
        help="of the model beside each document's first_stage_score; 1: the model alone; else as "
        "it was found in training",
    )  # fmt: skip
    rerank.add_argument(
        "file", metavar="FILE", help="a document per line, or JSON lines with a text; - for stdin"
    )
    command(
        "audit", commands.audit, "how good a live system's results are", GOES_ON,
        configured=True, file="LOG.jsonl",
    )  # fmt: skip
    data = group.add_parser("data", help="what a collection holds, and what looks wrong")
    command(
        "describe", commands.describe_data, "what a collection holds, and what looks wrong",
        within=data.add_subparsers(metavar="COMMAND", required=True), configured=True,
    )  # fmt: skip
    command(
        "rate", commands.rate, "Elos of a Parquet or JSONL file of comparisons",
        configured=True, file="FILE", epilog=ROWS_TO_RATE,
    )  # fmt: skip
    inspect = command(
        "inspect", commands.inspect, "one query's documents, comparisons, and what judges said"
    )
    inspect.add_argument("run", type=Path, metavar="RUN", help="a run folder (outputs/runs/...)")
    inspect.add_argument("--query", required=True, metavar="ID", help="id of the query")
    inspect.add_argument("--documents", type=int, default=20, help="so many, the best; 0: all")
    inspect.add_argument(
        "--comparisons", type=int, default=10, help="so many, the most surprising; 0: all"
    )
    annotate = command(
        "annotate", commands.annotate, "people compare documents of a run in a browser",
        "every answer is in the ledger",
    )  # fmt: skip
    annotate.add_argument(
        "place", type=Path, metavar="RUN|FOLDER",
        help="a run folder (outputs/runs/...), or with between=A,B a collection in BEIR layout",
    )  # fmt: skip
    annotate.add_argument(
        "--report", action="store_true",
        help="how judges agree with people; with between=A,B, which of the two people find better",
    )  # fmt: skip
    annotate.add_setting(
        "between", metavar="A,B",
        help="ask about what two systems of the results (start-search,zelo-search), or two TREC "
        "runs (files), order otherwise",
    )  # fmt: skip
    annotate.add_setting(
        "order",
        choices=("rank", "score"),
        help="what TREC runs are ordered by, where it is unclear",
    )
    annotate.add_setting(
        "home", type=Path, default="outputs", metavar="FOLDER",
        help="of the ledger, where FOLDER has no run: %(default)s",
    )  # fmt: skip
    annotate.add_setting(
        "list", type=int, metavar="N", help="lists of N documents, to be ordered by dragging"
    )
    annotate.add_setting("name", default="", metavar="NAME", help="who answers; else the page asks")
    annotate.add_setting("host", default="127.0.0.1", help="%(default)s: this machine alone")
    annotate.add_setting("port", type=int, default=0, help="0: any free one")
    annotate.add_setting("export", type=Path, metavar="FILE", help="write answers: .csv or .json")
    annotate.add_setting("import", type=Path, metavar="FILE", help="read answers from there")
    serve = command(
        "serve", commands.serve, "a model behind /rerank and /embeddings, to be tried",
        "what was under way was answered",
    )  # fmt: skip
    serve.add_argument("model", type=Path, metavar="RUN|MODEL")
    serve.add_setting("host", default="127.0.0.1", help="%(default)s: this machine alone")
    serve.add_setting("port", type=int, default=8000, help="%(default)s; 0: any free one")
    serve.add_setting(
        "at_once", type=int, default=32, metavar="N",
        help="texts that the model reads together, of all requests (%(default)s)",
    )  # fmt: skip
    serve.add_setting(
        "documents", type=int, default=1000, metavar="N", help="of one request (%(default)s)"
    )
    serve.add_setting(
        "waiting", type=int, default=4096, metavar="N",
        help="texts of all requests; what is beyond is told to come again (%(default)s)",
    )  # fmt: skip
    serve.add_setting(
        "key_variable", metavar="NAME", help="environment variable with the key that clients give"
    )
    reproduce = command(
        "reproduce", commands.reproduce, "run a manifest again and say what differs",
        "another home=FOLDER begins anew",
    )  # fmt: skip
    reproduce.add_argument("run", type=Path, metavar="RUN|MANIFEST")
    reproduce.add_setting(
        "home", type=Path, metavar="FOLDER", help="an empty one; else by the time"
    )
    reproduce.add_setting(
        "trust", choices=("true", "false"), default="false",
        help="whether a manifest may name addresses, environment and code of others",
    )  # fmt: skip
    clean = command(
        "clean", commands.clean, "embeddings that are kept for further runs; removes them"
    )
    clean.add_setting(
        "home", type=Path, default="outputs", metavar="FOLDER", help="that of the runs: %(default)s"
    )
    clean.add_setting(
        "remove", choices=("true", "false"), default="false",
        help="remove them; what is needed again is computed again",
    )  # fmt: skip
    publish = command(
        "publish", commands.publish, "put a trained model on the Hugging Face Hub",
        "the same command uploads what is missing",
    )  # fmt: skip
    publish.add_argument("place", type=Path, metavar="RUN|MODEL")
    publish.add_setting("repo", required=True, metavar="OWNER/NAME")
    publish.add_setting("private", choices=("true", "false"), default="true", help="%(default)s")
    publish.add_setting(
        "results", type=Path, metavar="FOLDER",
        help="of `zelo evaluate suite=...`, for the card's front matter",
    )  # fmt: skip
    zbench = command("import", commands.import_zbench, "zbench's data or annotation, as BEIR")
    zbench.add_argument("place", type=Path, metavar="FILE|FOLDER")
    zbench.add_setting("out", type=Path, required=True, metavar="FOLDER")
    export = command(
        "export", commands.export,
        "what a run rated, as other trainers' files or zbench's; a reranker for inference servers",
    )  # fmt: skip
    export.add_argument("place", type=Path, metavar="RUN|MODEL")
    export.add_setting("out", type=Path, required=True, metavar="FOLDER")
    export.add_setting(
        "as", choices=("sentence-transformers", "flagembedding", "tevatron", "zbench"),
        default="zbench", help="%(default)s",
    )  # fmt: skip
    export.add_setting(
        "to", choices=("vllm", "onnx", "int8", "openvino"),
        help="the model, as a sequence classifier or a graph, whose scores are compared with it",
    )  # fmt: skip
    export.add_setting(
        "negatives", type=int, default=15, metavar="N",
        help="of a query, of documents surely less relevant than its best, at most (%(default)s)",
    )  # fmt: skip
    if words and not words[0].startswith("-") and words[0] not in group.choices:
        raise UserError(f"{words[0]}: no such command; see zelo --help")
    return parser.parse_args(words)
