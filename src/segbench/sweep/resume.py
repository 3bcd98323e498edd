"""Continue a sweep: its interrupted or failed jobs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segbench.config.flat import changed, flatten
from segbench.config.handed_over import parse_config
from segbench.config.trust import refuse_handed_over
from segbench.errors import SegbenchError, as_typed, say
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job
from segbench.sweep.settings import Launching
from segbench.sweep.slurm import SlurmOptions

LAUNCHER = "hydra.launcher."


def resume(
    directory: str,
    names: list[str],
    failed: bool,
    jobs: int | None,
    devices_per_job: int | None,
    search_on: Callable[[Sweep, Launching], int],
    typed: Sequence[str] = (),
) -> int:
    """Continue a sweep. Of its file only numbers are used: how many jobs and devices, and seconds.

    Args:
        directory: the sweep's.
        names: jobs to continue; empty: all.
        failed: whether to run failed jobs again.
        jobs: how many run at once; None: as launched.
        devices_per_job: GPUs for each job; None: as launched.
        search_on: proposes and runs further trials of a search; returns an exit code.
        typed: words `hydra.launcher.KEY=VALUE`: a cluster and its settings are the user's own.

    Returns:
        an exit code: 0 if every job is finished (or queued on a cluster), else 1; 128 + the signal that ended it.

    Raises:
        SegbenchError: there is no such sweep or job, another process is launching it, or its file asks for a cluster,
            variables or a database that the user has not given.
    """
    from segbench.sweep.freeze import check_frozen
    from segbench.sweep.run import run_jobs, to_run
    from segbench.sweep.summary import exit_code, show

    with Sweep.open(directory) as sweep:
        settings = _settings(sweep, typed)
        if jobs is not None:
            settings = Launching.read(replace(settings, jobs=jobs).record())
        if devices_per_job is not None:
            settings = Launching.read(replace(settings, devices_per_job=devices_per_job).record())
        _refuse_storage(sweep)
        _say_where(sweep)
        wanted = [sweep.named(name) for name in names] or sweep.jobs
        chosen = to_run(sweep, wanted, settings, failed)
        check_frozen(chosen)
        _refuse_environment(sweep, chosen)
        refuse_handed_over([job.run.recorded() for job in chosen])
        if sweep.search is not None and not names:
            # The search itself continues open trials.
            chosen = [job for job in chosen if job.state() == "failed"]
        stopped = run_jobs(sweep, chosen, settings) if chosen else None
        if sweep.search is not None and stopped is None and chosen:
            _tell_study(sweep, chosen)
        if sweep.search is None or stopped is not None or names:
            return exit_code(sweep, show(sweep), stopped)
    return search_on(sweep, settings)


def launching_in(words: Sequence[str]) -> dict[str, Any]:
    """The settings in words `hydra.launcher.KEY=VALUE`, nested.

    Raises:
        SegbenchError: a value that is not YAML.
    """
    given: dict[str, Any] = {}
    for word in words:
        key, _, value = word.removeprefix(LAUNCHER).partition("=")
        given = changed(given, {key: parse_config(value, word)})
    return given


def _settings(sweep: Sweep, typed: Sequence[str]) -> Launching:
    """The launcher's settings: numbers of the sweep's file, and what is typed.

    Raises:
        SegbenchError: the file asks for a cluster, and no `hydra.launcher.cluster=` is typed; it prints the command.
    """
    recorded, given = Launching.read(sweep.launcher), launching_in(typed)
    if recorded.cluster != "local" and "cluster" not in given:
        raise SegbenchError(
            f"{sweep.path / 'sweep.yaml'}: hydra.launcher.cluster={recorded.cluster}",
            "a cluster, its options and its setup lines from you: a file that is handed over gives none",
            f"if you trust them: {shlex.join([*_again(sweep), *_words(recorded)])}",
        )
    return Launching.read({"jobs": recorded.jobs, "devices_per_job": recorded.devices_per_job} | given)


def _words(settings: Launching) -> list[str]:
    """What a launch has beyond the defaults, as it is typed; words that a caller quotes for the shell."""
    usual = flatten(SlurmOptions().__dict__)
    options = {key: value for key, value in flatten(settings.slurm or {}).items() if usual.get(key) != value}
    written = {"cluster": settings.cluster, **{f"slurm.{key}": value for key, value in options.items()}}
    return [
        f"{LAUNCHER}{key}={value if isinstance(value, str) and value.isalnum() else json.dumps(value)}"
        for key, value in written.items()
        if value not in (None, [], {}, ())
    ]


def _again(sweep: Sweep) -> list[str]:
    return ["segbench", "sweep", "resume", str(sweep.path)]


def _refuse_storage(sweep: Sweep) -> None:
    storage = (sweep.search or {}).get("storage")
    if storage is not None:
        raise SegbenchError(
            f"{sweep.path / 'sweep.yaml'}: hydra.sweeper.storage={storage}",
            "a database that you name: none out of a file that is handed over is opened",
            f"if you trust it, launch the search again: {launched_by(sweep)}",
        )


def launched_by(sweep: Sweep) -> str:
    """The last command that launched a sweep, for a shell, in the directory where it was typed."""
    place = [f"hydra.sweep.dir={sweep.path.absolute()}"]
    words = [word for word in sweep.commands[-1] if not word.startswith("hydra.sweep.dir=")] if sweep.commands else []
    return f"cd {as_typed(sweep.working_directory)} && {shlex.join([*words, *place])}"


def _say_where(sweep: Sweep) -> None:
    if sweep.working_directory != Path.cwd():
        say(
            f"{sweep.path} was launched in {sweep.working_directory}; relative paths in it are read from here; from "
            f"there: cd {as_typed(sweep.working_directory)}",
            file=sys.stderr,
        )


def _refuse_environment(sweep: Sweep, jobs: list[Job]) -> None:
    """Refuse variables out of the sweep's file that are not those of this process; the others are set by name.

    Raises:
        SegbenchError: names them, and the command that sets them.
    """
    named = {key: value for job in jobs for key, value in job.recorded_environment.items()}
    wanted = {key: value for key, value in named.items() if os.environ.get(key) != value}
    if wanted:
        words = " ".join(f"{key}={as_typed(value)}" for key, value in wanted.items())
        raise SegbenchError(
            f"a sweep whose file sets environment variables (hydra.job.env_set): {', '.join(wanted)}",
            "variables of your own: a file that is handed over sets none",
            f"if you trust them: {words} {shlex.join(_again(sweep))}",
        )
    for job in jobs:
        # As they are here: a cluster's node has others.
        job.environment = {key: os.environ[key] for key in job.recorded_environment}


def _tell_study(sweep: Sweep, jobs: list[Job]) -> None:
    from segbench.sweep.search import Searching, add_retried, open_study

    assert sweep.search is not None
    add_retried(open_study(sweep.path, Searching(), sweep.search["direction"]), jobs, sweep.search["metric"])
