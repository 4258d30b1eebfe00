"""A logger: a file of the results, beside one of what each training logs."""

import json

from zelo.config import Component, option


class Notebook(Component):
    file: str = option("notebook.json", "what it is called")

    def lightning(self, run, name):
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(str(run.folder), name="notebook", version=name)

    def finish(self, run, outcome):
        (run.folder / self.file).write_text(json.dumps(dict(outcome.numbers)))
