"""From the words of a command to configured objects, and to runs: what Hydra does for `zelo`."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.errors import UserError, crashed, in_words, of_the_system
from zelo.renamed import renamed

if TYPE_CHECKING:
    from omegaconf import DictConfig

GOES_ON = "the same command goes on where it stopped"
HOME = re.compile(r"""(?<=[=,:\["'])~(?=/|$)""")


def run(overrides: Sequence[str]) -> int:
    """Compose the configuration by Hydra, run it, and return the exit status."""
    # Hydra then raises what goes wrong instead of printing its own account of it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra

    from zelo.config import conf_folder
    from zelo.hydra_callbacks import sweeps, told
    from zelo.runs.sweep_folder import end_sweep, folder_to_go_on_in, seeded

    decorate = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    words = [*map(for_hydra, overrides)]
    told[:] = words
    if folder := folder_to_go_on_in(words):
        print(f"going on with the sweep in {folder}", file=sys.stderr)
        words.append("hydra.sweep.dir='{}'".format(str(folder).replace("'", r"\'")))
    sys.argv = ["zelo run", *words, *seeded(words)]
    sweeps.clear()
    _failed.clear()
    status = 0
    try:
        decorate(job)()
    except UserError:
        status = 2  # the job has said it
    except JobError as crash:
        status = 1
        if not sweeps:
            raise crash.__cause__ or crash from None
    except KeyboardInterrupt:
        print(f"\ninterrupted; {GOES_ON}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # Hydra could not compose a job, or found no trial that is done
        status = 2
        print(f"error: {readable(error)}", file=sys.stderr)
    if sweeps and sweeps[-1].is_dir():
        status = max(status, end_of_sweep(sweeps[-1]))
        end_sweep(sweeps[-1], done=status == 0)
        return status
    return 2 if _failed else status


_failed: list[Path] = []  # folder of the run, if this process has one alone and it failed


def job(config: DictConfig) -> float | None:
    """One run, alone or of a sweep; NDCG@10 of the trained model is what a sweeper maximises.

    In a sweep a failure is raised, by which launchers and sweepers learn of it: the others go on.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from zelo.runs.run_folder import execute

    settings = HydraConfig.get()
    sweep = settings.mode is RunMode.MULTIRUN
    if sweep:
        print(f"\n── run {settings.job.num}: {settings.job.override_dirname} ──", file=sys.stderr)
    folder = Path(settings.runtime.output_dir)
    group = Path(settings.sweep.dir).name if sweep else None
    side_by_side = "joblib" in settings.launcher.get("_target_", "")
    try:
        value = execute(config, folder, list(settings.overrides.task), group, side_by_side)
        if value is None and sweep and "optuna" in settings.sweeper.get("_target_", ""):
            raise UserError(
                "a search goes by NDCG@10 of the trained model, which this run did not come to: "
                "let it run to the stage evaluate (stages=null)"
            )
        return value
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        if isinstance(error, OSError):
            error = UserError(of_the_system(error))
        print(f"error: {error}", file=sys.stderr)
        if sweep:
            raise error from None
        _failed.append(folder)
        return None
    except Exception as error:
        if sweep:
            traceback.print_exc()
            print(crashed(error, " ".join(sys.argv)), file=sys.stderr)
        raise JobError(str(error)) from error


class JobError(Exception):
    """A job ended by an error that is no mistake of the user's; its traceback has been printed."""


def end_of_sweep(folder: Path) -> int:
    """Show a sweep's results side by side and name the jobs that failed; the exit status."""
    from zelo.reporting.sweep import failures, print_jobs, read_jobs, rows
    from zelo.runs.run_folder import shorter

    try:
        jobs = read_jobs([folder])
    except UserError:
        return 0  # nothing was begun, which has been said
    lost = failures(jobs)
    print(f"\n── {len(jobs)} runs in {shorter(folder)} ──")
    if any(job.numbers for job in jobs if job.status == "done"):
        print_jobs(rows(jobs))
        print(f"zelo compare {shorter(folder)} csv=FILE plot=FILE.png")
    for line in lost:
        print(f"not done: {line}", file=sys.stderr)
    return 2 if lost else 0


def composed(name: str, overrides: Sequence[str], **more: object) -> Any:
    """Compose a configuration and build what it describes; `UserError` where it is mistaken."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from zelo.config import build_from, conf_folder

    if option := next((word for word in overrides if word.startswith("-")), None):
        raise UserError(
            f"{option}: no option of this command, which takes GROUP=OPTION and KEY=VALUE; "
            f"sweeps (-m) are those of zelo run"
        )
    overrides = [for_hydra(word) for word in overrides]
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose(name, overrides=list(overrides))
            for key, value in more.items():
                OmegaConf.update(config, key, value)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(readable(error)) from None
    except (ValueError, TypeError, AttributeError, AssertionError, OSError) as error:
        # Hydra's, of a word; the system's where it takes one for a file's name
        raise UserError(f"{' '.join(overrides)}: cannot be composed ({in_words(error)})") from None
    return build_from(config)


def for_hydra(word: str) -> str:
    """An override as Hydra takes it: with the user's home, and with any argument of Lightning's
    Trainer added to those that conf/ names."""
    from zelo.distributed.trainer import LightningTrainer

    group, _, rest = at_home(word).partition(".")
    key, sets, _ = rest.partition("=")
    known = LightningTrainer.model_fields
    added = group == "trainer" and sets and key.isidentifier() and key not in known
    return f"++{at_home(word)}" if added else at_home(word)


def at_home(word: str) -> str:
    """An override with the user's home in place of a `~` that begins its value or an item of it.

    Not every shell puts it there after a `=`, and to Hydra the character means something else.
    """
    return HOME.sub(lambda _: os.path.expanduser("~"), word)


def readable(error: BaseException) -> str:
    """Hydra's account of a mistake in the command line, on one line."""
    word = getattr(error, "override", None)  # of one that its grammar cannot read
    several = re.match(r"Ambiguous value for argument '(.*)'$", str(error), re.MULTILINE)
    if several is not None:
        word = several[1]
    quoted = quoted_twice(word) if isinstance(word, str) else None
    if quoted is not None:
        meant = "; a list is key=[a,b], a sweep zelo run -m" if several else ""
        return (
            f"{word}: some of its characters mean something to Hydra's grammar; quote the value "
            f"twice, for the shell and for Hydra: {quoted}{meant}"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    if first.startswith(("Could not override '", "Could not delete from config. '")):
        key = first.split("'")[1]
        return (
            renamed(key)
            or f"{key}: no such option; `zelo run --cfg job` prints those that there are"
        )
    rest = takewhile(lambda line: not line.startswith(("Config search", "full_key:")), lines[1:])
    return " ".join([re.sub(r"^In '[^']+': ", "", first), *rest])


def quoted_twice(word: str) -> str | None:
    """A word of the command line that sets an option to a text, as a shell and Hydra read it; None
    where it does not, or where its value is quoted or a list."""
    key, sets, value = word.partition("=")
    if not sets or not re.fullmatch(r"\+{0,2}[\w./@-]+", key) or value[:1] in tuple("[{'\""):
        return None
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    return shlex.quote(f'{key}="{escaped}"')
