"""What results.json and history.jsonl say of a score and of the program that made it, as schemas.

A run may come from a stranger: whoever reads it relies on these types. Keys that are not listed pass.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

Text = str | None


class _Schema(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Network(_Schema):
    run: str
    checkpoint: str
    digest: Text = None


class _Protocol(_Schema):
    dataset: Text = None
    split: Text = None
    checkpoint: Text = None
    checkpoint_chosen_by: Text = None
    precision: Text = None
    tta: Text = None
    tta_scales: list[float] = []
    input_scale: float = 1.0
    match_histogram: Text = None
    tile: int | None = None
    threads: int | None = None
    calibration: dict[str, list[float]] = {}
    median: int = 0
    contours: float = 0.0
    ensemble: list[_Network] = []
    digest: Text = None
    decoding: dict[str, str | float | bool | None] = {}
    paper: dict[str, Any] | None = None
    debug: Text = None
    ended_by: Text = None
    continued: list[str] | None = None


class _Code(_Schema):
    commit: Text = None
    dirty: bool | None = None


class _Provenance(_Schema):
    command: Text = None
    started: Text = None
    python: Text = None
    platform: Text = None
    processor: Text = None
    device_memory_gib: float | None = None
    device: Text = None
    precision: Text = None
    run: Text = None
    git: _Code | None = None
    versions: dict[str, Text] | None = None
    own_code: dict[str, str] | None = None
    legs: int | None = None
    resumed: list[Any] | None = None
    processes: int | None = None
    threads: int | None = None


def fault_of_protocol(protocol: object) -> str | None:
    """Why `protocol` of results.json is none; None if it is one."""
    return _fault(_Protocol, protocol)


def fault_of_provenance(provenance: object) -> str | None:
    """Why `provenance` of results.json or of a leg is none; None if it is one."""
    return _fault(_Provenance, provenance)


def _fault(schema: type[BaseModel], value: object) -> str | None:
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
