"""What sets runs apart and stands in no configuration: code, packages, machines, definitions that nobody recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segbench.compare.records import RunRecord


def circumstances(runs: Sequence[RunRecord]) -> list[str]:
    """What differs and stands in no configuration, a sentence each."""
    notes: list[str] = []
    commits = Counter(_commit(run) for run in runs)
    if len(commits) > 1:
        said = ", ".join(f"{commit} ({count})" for commit, count in commits.most_common(5))
        notes.append(f"The runs are of different code: {said}{', ...' if len(commits) > 5 else ''}.")
    changed = sum(bool((run.provenance.get("git") or {}).get("dirty")) for run in runs)
    if changed:
        notes.append(f"{changed} of {len(runs)} runs were made with uncommitted changes to the code.")
    for name in sorted({name for run in runs for name in run.provenance.get("versions") or {}}):
        met = {str((run.provenance.get("versions") or {}).get(name)) for run in runs if run.provenance.get("versions")}
        if len(met) > 1:
            notes.append(f"Versions of {name} differ: {', '.join(sorted(met))}.")
    for key, said in (("processor", "Processors"), ("platform", "Platforms")):
        met = {str(run.provenance[key]) for run in runs if run.provenance.get(key)}
        if len(met) > 1:
            notes.append(f"{said} differ: {', '.join(sorted(met))}.")
    threads = {run.settings["threads"] for run in runs if "threads" in run.settings}
    if len(threads) > 1:
        notes.append(f"Scored with different numbers of CPU threads: {', '.join(sorted(map(str, threads)))}.")
    return notes + _unrecorded(runs)


def _commit(run: RunRecord) -> str:
    git = run.provenance.get("git") or {}
    return str(git["commit"])[:10] if git.get("commit") else "not recorded"


def _unrecorded(runs: Sequence[RunRecord]) -> list[str]:
    without = sum(not run.versions for run in runs)
    if not without:
        return []
    return [
        f"{without} of {len(runs)} runs do not say by which definitions their metrics were computed "
        "(W&B runs and scored files); they are taken to be those of the others."
    ]
