"""A store that runs nothing: it notes what each stage of a pipeline would be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zelo.config import Component
from zelo.store import Artifact, Stage, Store


@dataclass(frozen=True)
class PlannedArtifact(Artifact):
    """The output of a stage that does not run."""

    @property
    def complete(self) -> bool:
        """Whether the stage has run: never."""
        return False


@dataclass(frozen=True)
class PlannedStage:
    """One stage as the pipeline would call it."""

    stage: str
    label: str
    inputs: Mapping[str, Artifact]
    options: Mapping[str, Any]
    artifact: Artifact


@dataclass
class PlanningStore(Store):
    """Takes the place of a store: what it is asked to run it notes in `stages`, once each."""

    stages: list[PlannedStage] = field(default_factory=list)

    def run(
        self,
        stage: Stage,
        inputs: Mapping[str, Artifact],
        options: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> Artifact:
        """Note the stage; what it would make, which is the same for the same inputs and options."""
        for noted in self.stages:
            if (noted.stage, noted.inputs, noted.options) == (stage.name, inputs, options):
                return noted.artifact
        name = f"planned-{len(self.stages)}"
        artifact = PlannedArtifact(stage.name, name, Path(name))
        self.stages.append(PlannedStage(stage.name, label or stage.name, inputs, options, artifact))
        return artifact

    def fingerprint(self, component: Component) -> str:
        """Of nothing: files that it would be taken of may not be there yet."""
        return ""

    def pending(
        self, stage: Stage, inputs: Mapping[str, Artifact], options: Mapping[str, Any]
    ) -> bool:
        """Whether the stage would run now: never."""
        return False
