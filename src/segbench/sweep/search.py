"""A search: Optuna proposes the next job's values and gets its score. Jobs know nothing of the search."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, counted
from segbench.sweep.scores import history, score_of, why_no_score
from segbench.sweep.space import Space, check_optuna

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

SAMPLERS, PRUNERS = ("tpe", "random"), ("median", "none")
STUDY = "segbench"
LOOK_EVERY_S = 1.0
_ENDED = ("finished", "failed", "pruned")


@dataclass(frozen=True)
class Searching:
    """Settings of a search; conf/hydra/sweeper/optuna.yaml documents each."""

    n_trials: int = 20
    sampler: str = "tpe"
    seed: int = 0
    startup_trials: int = 10
    pruner: str = "median"
    warmup_steps: int = 0
    direction: str | None = None
    storage: str | None = None
    params: Mapping[str, Any] | None = None
    zip: Sequence[Any] | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Searching:
        """Read them from a config.

        Raises:
            SegbenchError: an unknown key, or a value out of its range.
        """
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise _wrong(key, given[key], f"one of {', '.join(known)}")
        return cls(**given)

    def __post_init__(self) -> None:
        for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, key) not in known:
                raise _wrong(key, getattr(self, key), " or ".join(known))
        for key, least in (("n_trials", 1), ("seed", 0), ("startup_trials", 0), ("warmup_steps", 0)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise _wrong(key, value, f"a whole number, at least {least}")


def _wrong(key: str, value: Any, expected: str) -> SegbenchError:
    return SegbenchError(f"hydra.sweeper.{key}={value}", expected, f"correct hydra.sweeper.{key}=")


def open_study(directory: Path, settings: Searching, direction: str) -> Study:
    """Open the study of a sweep, or make a new one.

    Args:
        directory: the sweep's.
        settings: the search's.
        direction: `maximize` or `minimize`.

    Raises:
        SegbenchError: Optuna is not installed, or the study cannot be read or written.
    """
    optuna = _optuna()
    with answering(directory, settings, OSError, RuntimeError, ImportError):
        directory.mkdir(parents=True, exist_ok=True)
        # A file holds one search; a shared database holds several.
        name = STUDY if settings.storage is None else str(directory.absolute())
        study = optuna.create_study(
            storage=_address(directory, settings), study_name=name, direction=direction, load_if_exists=True
        )
        # A readable study may still be read-only.
        study.set_user_attr("opened", time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        seed = settings.seed + len(study.get_trials(deepcopy=False))
    # A continued study must not draw the same values again.
    study.sampler = _sampler(settings, seed)
    study.pruner = (
        optuna.pruners.NopPruner()
        if settings.pruner == "none"
        else optuna.pruners.MedianPruner(
            n_startup_trials=max(1, settings.startup_trials), n_warmup_steps=settings.warmup_steps
        )
    )
    return study


def _optuna() -> Any:
    """The package, told to be quiet."""
    check_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(settings: Searching, seed: int) -> BaseSampler:
    optuna = _optuna()
    if settings.sampler == "random":
        return cast("BaseSampler", optuna.samplers.RandomSampler(seed=seed))
    return cast(
        "BaseSampler",
        optuna.samplers.TPESampler(n_startup_trials=settings.startup_trials, seed=seed, constant_liar=True),
    )


def first_trials(settings: Searching, space: Space) -> list[list[str]]:
    """The overrides of the trials of a new study that depend on no score.

    Args:
        settings: the search's.
        space: the search space.
    """
    study = _optuna().create_study(sampler=_sampler(settings, settings.seed))
    drawn = settings.n_trials if settings.sampler == "random" else min(settings.n_trials, settings.startup_trials)
    return [space.overrides(study.ask(space.distributions).params) for _ in range(drawn)]


def _address(directory: Path, settings: Searching) -> str:
    return settings.storage or f"sqlite:///{(directory / 'study.db').absolute()}"


@contextlib.contextmanager
def answering(directory: Path, settings: Searching, *faults: type[Exception]) -> Iterator[None]:
    """Turn errors of a study in the block into a `SegbenchError`.

    Args:
        directory: the sweep's.
        settings: the search's.
        faults: further errors to catch, besides those of Optuna and of the database.

    Raises:
        SegbenchError: the study cannot be read or written.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OptunaError, *faults) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SegbenchError(
            f"the study {_address(directory, settings)} does not answer: {reason}",
            "an Optuna study that this user may read and write, or no file yet",
            "choose another hydra.sweep.dir=DIR (or hydra.sweeper.storage=), or restore the file",
        ) from error


class Search:
    """The jobs of a search, for `segbench.sweep.launching.launch`.

    Args:
        study: from `open_study`.
        space: the search space.
        sweep: holds the trials as jobs.
        freeze: makes a job from overrides and a number, or finds the one with the same configuration.
        metric: the score, e.g. `val/mean_iu`.
        n_trials: total number of trials.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        sweep: Sweep,
        freeze: Callable[[Sequence[str], int], Job],
        metric: str,
        n_trials: int,
    ) -> None:
        from optuna.trial import TrialState

        self._states = TrialState
        self._study, self._space, self._sweep, self._freeze = study, space, sweep, freeze
        self._metric, self._n_trials = metric, n_trials
        self._trials: dict[str, list[Trial]] = {}
        self._reported: dict[str, int] = {}
        self._looked = 0.0
        self._cut_off = self._take_up()

    def left(self) -> int:
        """How many trials are left to start or continue."""
        return len(self._cut_off) + max(0, self._n_trials - len(self._study.get_trials(deepcopy=False)))

    def _take_up(self) -> list[Job]:
        """The jobs of trials that an earlier launcher left open."""
        import optuna

        self._sweep.look()
        names = {job.name: job for job in self._sweep.jobs}
        open_: dict[str, Job] = {}
        for frozen in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING, self._states.WAITING)):
            trial = optuna.Trial(self._study, frozen._trial_id)
            job = names.get(str(frozen.user_attrs.get("job")))
            if job is None or job.state() == "missing":
                self._fail([trial], "the launcher ended before the job existed")
                continue
            self._trials.setdefault(job.name, []).append(trial)
            open_[job.name] = job
        taken = []
        for job in open_.values():
            if (state := job.state()) in _ENDED:
                # It ended without its launcher, or a retry ran it.
                self._tell(job)
            elif state in ("prepared", "interrupted") or job.on_cluster:
                # A job queued on a cluster is watched; one that another process runs is left alone.
                taken.append(job)
        return taken

    def next(self) -> Job | None:
        """An interrupted trial first, then a new one; None when there are enough."""
        if self._cut_off:
            return self._cut_off.pop(0)
        while len(self._study.get_trials(deepcopy=False)) < self._n_trials:
            trial = self._study.ask(self._space.distributions)
            job = self._freeze(self._space.overrides(trial.params), trial.number)
            trial.set_user_attr("job", job.name)
            new = job.name not in self._trials
            self._trials.setdefault(job.name, []).append(trial)
            if new and job.state() in ("prepared", "interrupted"):
                self._sweep.save()
                return job
            # The same configuration again: its result is reused, or shared once its open trial ends.
            if new:
                self._tell(job)
        return None

    def started(self, job: Job) -> None:
        """No-op."""

    def watch(self, running: Sequence[Job]) -> list[Job]:
        """Report the validation scores of running jobs; return those to prune."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return []
        self._looked = now
        behind = []
        for job in running:
            if not job.pruned and self._falls_behind(job):
                job.pruned = True
                behind.append(job)
        if behind:
            self._sweep.save()
        return behind

    def _falls_behind(self, job: Job) -> bool:
        trials = self._trials.get(job.name, [])
        for step, value in history(job.run, self._metric):
            if step <= self._reported.get(job.name, -1):
                continue
            self._reported[job.name] = step
            for trial in trials:
                with warnings.catch_warnings():
                    # A continued trial has already reported these steps.
                    warnings.simplefilter("ignore", UserWarning)
                    trial.report(value, step)
            if any(trial.should_prune() for trial in trials):
                return True
        return False

    def ended(self, job: Job) -> None:
        """Report the result to the study; an interrupted job stays open, for a resume."""
        if job.pruned and job.run.state() == "finished":
            # It finished before it could be pruned.
            job.pruned = False
        if job.state() in _ENDED:
            self._tell(job)

    def _tell(self, job: Job) -> None:
        trials, state = self._trials.pop(job.name), job.state()
        if state == "pruned":
            for trial in trials:
                self._study.tell(trial, state=self._states.PRUNED)
            return
        reason = why_no_score(job.run, self._metric) if state == "finished" else state
        if reason is None:
            for trial in trials:
                self._study.tell(trial, score_of(job.run, self._metric))
        else:
            self._fail(trials, reason)

    def _fail(self, trials: Sequence[Trial], reason: str) -> None:
        for trial in trials:
            trial.set_user_attr("reason", reason)
            self._study.tell(trial, state=self._states.FAIL)


def add_retried(study: Study, jobs: Sequence[Job], metric: str) -> None:
    """Add the scores of retried jobs that have now finished to a study, as separate trials.

    Args:
        study: gets the trials.
        jobs: those that ran again.
        metric: the score.
    """
    from optuna.trial import TrialState, create_trial

    failed = {trial.user_attrs.get("job"): trial for trial in study.get_trials(states=(TrialState.FAIL,))}
    for job in jobs:
        value = score_of(job.run, metric) if job.state() == "finished" else None
        if value is None or not math.isfinite(value) or job.name not in failed:
            continue
        before = failed[job.name]
        study.add_trial(
            create_trial(
                value=value,
                params=before.params,
                distributions=before.distributions,
                user_attrs={"job": job.name, "retried": before.number},
            )
        )


def counts(study: Study) -> str:
    """The trials of a study by state, as text."""
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return counted(len(states), "trial") + (f": {', '.join(parts)}" if parts else "")
