"""What `auto` settings mean on this machine, and which of its properties affect results."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import torch

from segbench.config.record import Config, Trainer
from segbench.errors import SegbenchError
from segbench.runtime.processes import started_by
from segbench.runtime.threads import divided, settle_threads
from segbench.runtime.workers import settle_workers


def settle(config: Config) -> tuple[Config, list[str]]:
    """Replace every `auto` that depends on the machine by its value here.

    Under torchrun, and under srun with several tasks, they start the processes: `trainer.devices` and
    `trainer.num_nodes` follow from the number of processes.

    Returns:
        the settled configuration, and a sentence for the log for each setting.

    Raises:
        SegbenchError: there are fewer GPUs than asked for, several machines are asked for without torchrun or
            srun, or `threads` is invalid.
    """
    trainer, gpus = config.trainer, torch.cuda.device_count()
    if trainer.on_gpu and gpus == 0:
        raise SegbenchError(
            f"trainer.accelerator={trainer.accelerator} on a machine without a usable GPU",
            "a GPU that torch sees (torch.cuda.is_available())",
            "use trainer=cpu, or install a CUDA build of torch beside a driver",
        )
    changes: dict[str, Any] = {}
    if trainer.accelerator == "auto":
        changes["trainer.accelerator"] = "gpu" if gpus else "cpu"
    on_gpu = trainer.on_gpu or changes.get("trainer.accelerator") == "gpu"
    report = [f"device: {torch.cuda.get_device_name() if on_gpu else 'CPU'}"]
    devices, nodes, sentences = _processes(trainer)
    report += sentences
    if not on_gpu:
        devices = _cpu_processes(devices)
    elif not one_gpu_each(devices):
        devices = _gpus(devices, gpus)
    here = len(devices) if isinstance(devices, list) else devices
    changes |= {"trainer.devices": devices, "trainer.num_nodes": nodes}
    if trainer.sync_batchnorm == "auto":
        # torch supports it on GPUs only; on CPUs each process normalises its own samples.
        changes["trainer.sync_batchnorm"] = on_gpu and here * nodes > 1
    bf16 = _gpu_computes_bf16() if on_gpu else _cpu_computes_bf16()
    if trainer.precision == "auto":
        precision = changes["trainer.precision"] = "bf16-mixed" if bf16 else "32-true"
        report.append(f"precision: {precision} (trainer.precision=32-true turns bf16 off)")
    if trainer.allow_tf32 == "auto":
        changes["trainer.allow_tf32"] = False
        in_float32 = str(changes.get("trainer.precision", trainer.precision)).startswith("32")
        if on_gpu and in_float32 and torch.cuda.is_tf32_supported():
            report.append("TF32: off (trainer.allow_tf32=true computes float32 products faster, with 10 bits)")
    if trainer.benchmark == "auto":
        tiles = config.data.tile is not None
        changes["trainer.benchmark"] = on_gpu and tiles and not trainer.deterministic
        if on_gpu and not trainer.deterministic:
            why = "training tiles have one size" if tiles else "whole images may have many sizes"
            but = "; off while whole images are scored" if tiles and config.tile is None else ""
            report.append(f"trainer.benchmark: {'on' if tiles else 'off'}, since {why}{but}")
    elif trainer.deterministic and trainer.benchmark:
        # Which algorithm is the fastest changes from one run to the next.
        changes["trainer.benchmark"] = False
        report.append("trainer.benchmark: off, as trainer.deterministic asks for the same algorithms in each run")
    if config.task.channels_last == "auto":
        changes["task.channels_last"] = on_gpu or bf16
        report.append(f"channels_last: {on_gpu or bf16} (task.channels_last=false turns it off)")
    if config.data.num_workers == "auto":
        changes["data.num_workers"], sentence = settle_workers(on_gpu, here)
        report.append(sentence)
    changes["threads"], sentence = settle_threads(config.threads, here)
    return config.replace(changes), [*report, sentence]


def one_gpu_each(processes_here: object) -> bool:
    """Whether srun gave each task of this machine a GPU of its own, which is the only one that it sees.

    Args:
        processes_here: the number of tasks on this machine.
    """
    if started_by() != "srun" or torch.cuda.device_count() != 1 or not isinstance(processes_here, int):
        return False
    here = int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))
    return processes_here > 1 and ("SLURM_GPUS_PER_TASK" in os.environ or here >= processes_here)


def impossible(config: Config, settled: Collection[str]) -> dict[str, Any]:
    """Settled values that this machine cannot provide, as changes back to `auto`.

    Args:
        config: the run's.
        settled: the keys that were `auto` when the run began.
    """
    trainer, gpus = config.trainer, torch.cuda.device_count()
    lost = trainer.on_gpu and gpus == 0
    possible = {
        "trainer.accelerator": not lost,
        "trainer.devices": not trainer.on_gpu or (not lost and trainer.processes_here <= gpus),
        "trainer.precision": lost or not trainer.on_gpu or _gpu_computes(trainer.precision),
        "trainer.sync_batchnorm": not (lost and trainer.sync_batchnorm is True),
        # A resume may have more processes than the run began with.
        "threads": config.threads == "auto" or divided(config.threads, trainer.processes_here) == config.threads,
        "data.num_workers": config.data.num_workers
        == settle_workers(trainer.on_gpu and not lost, trainer.processes_here)[0],
    }
    return {key: "auto" for key in settled if not possible.get(key, True)}


def _gpu_computes(precision: str | int) -> bool:
    return "bf16" not in str(precision) or _gpu_computes_bf16()


def _processes(trainer: Trainer) -> tuple[Any, int, list[str]]:
    """Devices, nodes, and sentences for the log."""
    starter, environment = started_by(), os.environ
    if starter == "torchrun":
        here = int(environment["LOCAL_WORLD_SIZE"])
        nodes = int(environment["WORLD_SIZE"]) // here
    elif starter == "srun":
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
        here = int(environment["SLURM_STEP_NUM_TASKS"]) // nodes
    elif starter is None and trainer.num_nodes > 1:
        raise SegbenchError(
            f"trainer.num_nodes={trainer.num_nodes} without torchrun or srun",
            "one process per device on each machine",
            "torchrun --nnodes 2 --nproc_per_node GPUS --rdzv_backend c10d --rdzv_endpoint HOST:29400 --rdzv_id ID "
            "-m segbench.train OVERRIDES, on each machine",
        )
    else:
        return trainer.devices, trainer.num_nodes, []
    return here, nodes, [f"{starter}: {here} processes{f' on each of {nodes} machines' if nodes > 1 else ''}"]


def _gpus(devices: Any, gpus: int) -> int | list[int]:
    if devices in ("auto", -1):
        return gpus
    if isinstance(devices, list) and devices and all(isinstance(number, int) for number in devices):
        fits = all(0 <= number < gpus for number in devices)
    else:
        fits = isinstance(devices, int) and 0 < devices <= gpus
    if not fits:
        raise SegbenchError(
            f"trainer.devices={devices}",
            f"at most the {gpus} GPUs here, or their numbers, [0] to [{gpus - 1}]",
            "lower it; for several machines use torchrun or Slurm",
        )
    checked: int | list[int] = devices
    return checked


def _cpu_processes(devices: Any) -> int:
    if devices in ("auto", -1):
        return 1
    if not isinstance(devices, int) or devices < 1:
        raise SegbenchError(f"trainer.devices={devices} on a CPU", "a number of processes, at least 1", "correct it")
    return devices


def machine(config: Config) -> dict[str, Any]:
    """Properties of the machine that affect the last bits of a result; takes a settled configuration."""
    trainer = config.trainer
    gpu: dict[str, Any] = {"device": "CPU", "cuda": None, "cudnn": None, "tf32": False, "benchmark": False}
    if trainer.on_gpu:
        cudnn: Any = torch.backends.cudnn
        gpu = {
            "device": torch.cuda.get_device_name(),
            "device_memory_gib": round(torch.cuda.get_device_properties().total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version(),
            "tf32": torch.cuda.is_tf32_supported()
            and (cudnn.conv.fp32_precision == "tf32" if trainer.allow_tf32 is None else bool(trainer.allow_tf32)),
            "benchmark": bool(trainer.benchmark),
        }
    return {
        **gpu,
        "processes": trainer.processes,
        "threads": config.threads,
        "precision": trainer.precision,
        "deterministic": trainer.deterministic,
    }


def _gpu_computes_bf16() -> bool:
    # Emulated, it is slower than float32: V100, T4.
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_computes_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
