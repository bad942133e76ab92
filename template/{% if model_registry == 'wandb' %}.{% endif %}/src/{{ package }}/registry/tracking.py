"""What is kept of a training in W&B: a run with parameters, metrics, pictures and its data.

With WANDB_MODE=offline the client keeps it in var/wandb, and `wandb sync` sends it later.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import wandb

from ..training.provenance import git, user
from .base import Training, Trial

OFFLINE = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE with which nothing is sent."""
_RUNS: dict[str, wandb.Run] = {}
"""The runs under way in this process."""


@contextmanager
def tracked(
    project: str,
    name: str,
    entity: str | None = None,
    config: dict[str, Any] | None = None,
    group: str | None = None,
) -> Iterator[str]:
    """The id of a run; it ends as failed when what it holds raises."""
    run = wandb.init(
        entity=entity,
        project=project,
        name=name,
        group=group,
        config=config or {"user": user(), "commit": git()[0]},
        mode=cast(Any, os.environ.get("WANDB_MODE") or "online"),
        reinit="create_new",
        settings=wandb.Settings(
            console="off",
            disable_git=True,
            init_timeout=60,
            save_code=False,
            x_disable_stats=True,
        ),
    )
    _RUNS[run.id] = run
    try:
        yield run.id
    except BaseException:
        run.finish(exit_code=1)
        raise
    finally:
        del _RUNS[run.id]
    run.finish()


def log(run: str, training: Training) -> wandb.Run:
    """Logs all there is to know of a training to a run under way, and returns that."""
    tracked = _RUNS[run]
    tracked.config.update({key: str(value)[:500] for key, value in training.parameters.items()})
    paths = sorted(training.artifacts.glob("*.png"))
    pictures = {path.stem: wandb.Image(str(path)) for path in paths}
    tracked.log({**training.metrics, **pictures})
    data = wandb.Artifact(
        f"{tracked.project}-data",
        "dataset",
        description=f"A sample of the rows, from {training.source}",
        metadata={"fingerprint": training.bundle.manifest.data, "source": training.source},
    )
    with data.new_file("sample.csv") as file:
        training.frame.to_csv(file, index=False)
    if os.environ.get("WANDB_MODE") in OFFLINE:  # what a run uses must be at W&B
        tracked.log_artifact(data)
    else:
        tracked.use_artifact(data)
    return tracked


class _Failed(Exception):
    """A trial that failed, as its run is told."""


def log_search(
    project: str, name: str, trials: Sequence[Trial], artifacts: Path, entity: str | None = None
) -> str:
    """Logs a search: a run with a folder of pictures, and a run of each trial in its group."""
    group = uuid.uuid4().hex[:8]
    with tracked(project, name, entity, group=group) as search:
        _RUNS[search].log({path.stem: wandb.Image(str(path)) for path in artifacts.glob("*.png")})
        for trial in trials:
            config = {**trial.parameters, "error": trial.error}
            with (
                suppress(_Failed),
                tracked(project, f"trial {trial.number}", entity, config, group) as run,
            ):
                _RUNS[run].log({**trial.metrics, "seconds": trial.seconds})
                if trial.error:
                    raise _Failed
    return search
