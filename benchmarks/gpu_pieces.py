"""What `python benchmarks/gpu.py` measures, piece by piece; each runs in a process of its own.

`say(figure, value, unit, goal)` writes a figure down at once, so that a piece that is cut off keeps those it has.
The pieces at the top need torch, numpy and `src` alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".cache" / "gpu"
"""Progress, runs and carried data; git ignores it."""
Say = Callable[..., None]
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
WORTH_IT = 1.2
"""How many times as fast a CUDA graph must be to be offered for fixed tiles."""


@dataclass(frozen=True)
class Piece:
    """A part of at most eight minutes.

    Attributes:
        run: `run(say, tiny)`; it raises `Skipped` with the reason where it cannot run here.
        needs: packages beside torch and numpy.
        gpus: how many; 0 where a CPU serves for trying it out.
        goes_on: it continues at each call until it says that it is done.
    """

    run: Callable[[Say, bool], None]
    needs: tuple[str, ...] = ()
    gpus: int = 0
    goes_on: bool = False

    def lacks(self) -> str | None:
        """Why it cannot run here; None if it can."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        found = torch.cuda.device_count()
        return f"{self.gpus} GPUs needed, torch sees {found}" if found < self.gpus else None


class Skipped(Exception):
    """A piece that cannot run here, with the reason."""


class Unfinished(Exception):
    """A piece that goes on at the next call."""


def wait() -> None:
    """Until the device is idle."""
    if CUDA:
        torch.cuda.synchronize()


def milliseconds(way: Callable[[], Any], repeats: int, warmup: int = 5) -> tuple[float, float]:
    """Median time of a call on the device, and that in which the host has queued it."""
    event: Any = torch.cuda.Event
    for _ in range(warmup):
        way()
    wait()
    device, host = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        if CUDA:
            first, last = (event(enable_timing=True) for _ in range(2))
            first.record()
            way()
            last.record()
            host.append((time.perf_counter() - began) * 1e3)
            last.synchronize()
            device.append(first.elapsed_time(last))
        else:
            way()
            host.append((time.perf_counter() - began) * 1e3)
            device.append(host[-1])
    return statistics.median(device), statistics.median(host)


def matrix_rate(tiny: bool) -> float:
    """TFLOP/s of a large product of bf16 matrices: what this machine can do now."""
    side = 256 if tiny else 8192
    one, other = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / milliseconds(lambda: one @ other, 3 if tiny else 30)[0] / 1e9


def _network(name: str, tiny: bool) -> tuple[nn.Module, int, int]:
    """A network, its input channels and the classes."""
    from segbench.models.fcn import fcn8s
    from segbench.models.unet import UNet

    if name == "fcn8s":
        net: nn.Module = fcn8s(width=0.02 if tiny else 1.0)
        for key, parameter in net.named_parameters():
            if key.startswith("score") and parameter.ndim > 1:
                # Zeros otherwise, which would be timed.
                nn.init.normal_(parameter, std=0.01)
        return net, 3, 21
    width = 4 if tiny else 64
    return (UNet(width=width) if name == "unet" else UNet(width=width, padding="same", norm="batch")), 1, 2


def _stepper(name: str, batch: int, side: int, tiny: bool) -> Callable[[], None]:
    from segbench.losses import CrossEntropy

    torch.manual_seed(0)
    net, channels, classes = _network(name, tiny)
    net = net.to(DEVICE).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    image = torch.rand(batch, channels, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        out = net(image[:1])
    target = torch.randint(0, classes, (batch, *out.shape[-2:]), device=DEVICE)
    loss = CrossEntropy()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9, momentum=0.9, fused=True if CUDA else None)

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = net(image)
        value = loss(logits, target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


@contextlib.contextmanager
def told(say: Say, name: str) -> Iterator[None]:
    """A figure that fails is written down, and the next one goes on."""
    try:
        yield
    except Exception as error:
        say(name, failed=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
    if CUDA:
        torch.cuda.empty_cache()


def checks(say: Say, tiny: bool) -> None:
    """Without pytest: networks and losses twice under deterministic=true, TF32, and what bf16 changes."""
    from segbench.losses import CrossEntropy, Dice, Focal, LovaszSoftmax
    from segbench.models.fcn import fcn8s, fcn_alexnet, fcn_googlenet
    from segbench.models.layers import lrn
    from segbench.models.unet import UNet

    torch.use_deterministic_algorithms(True)
    nets: Mapping[str, tuple[Callable[[], nn.Module], int, int]] = {
        "U-Net": (lambda: UNet(width=8, depth=2), 1, 60),
        "FCN-8s": (lambda: fcn8s(width=0.03), 3, 64),
        "FCN-AlexNet": (lambda: fcn_alexnet(width=0.05), 3, 64),
        "FCN-GoogLeNet": (lambda: fcn_googlenet(width=0.05), 3, 64),
    }
    for name, (make, channels, side) in nets.items():
        with told(say, f"deterministic, {name}"):
            gradients = []
            for _ in range(2):
                torch.manual_seed(0)
                net = make().to(DEVICE).train()
                image = torch.rand(2, channels, side, side, device=DEVICE)
                with torch.autocast(DEVICE, torch.bfloat16):
                    net(image).float().square().sum().backward()
                gradients.append([p.grad for p in net.parameters() if p.grad is not None])
            same = all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
            say(f"deterministic, {name}: two gradients are equal", same, "", "true", same)
    for loss in (CrossEntropy(), Focal(), Dice(), LovaszSoftmax(), LovaszSoftmax(per_image=False)):
        name = type(loss).__name__
        with told(say, f"deterministic, {name}"):
            logits = torch.randn(2, 4, 64, 64, device=DEVICE, requires_grad=True)
            target, weight = torch.randint(0, 4, (2, 64, 64), device=DEVICE), torch.rand(2, 64, 64, device=DEVICE)
            one, other = (torch.autograd.grad(loss(logits, target, weight), logits)[0] for _ in range(2))
            say(f"deterministic, {name}: two gradients are equal", bool(torch.equal(one, other)), "", "true")
    torch.use_deterministic_algorithms(False)
    with told(say, "LRN"):
        image = torch.randn(1, 16, 20, 20, device=DEVICE) * 100
        theirs = nn.functional.local_response_norm(image, 5, 1e-4, 0.75, 1.0)
        say("LRN: largest difference from torch's", float((lrn(image) - theirs).abs().max()), "", "1e-4")


def rate(say: Say, tiny: bool) -> None:
    """What the machine can do: bf16 products and copies."""
    say("bf16 matrix rate", matrix_rate(tiny), "TFLOP/s")
    source = torch.randn(2**20 if tiny else 2**28, device=DEVICE)
    target = torch.empty_like(source)
    took = milliseconds(lambda: target.copy_(source), 3 if tiny else 20)[0]
    say("copy on the device", 2 * source.nbytes / took / 1e9, "TB/s")


def steps(say: Say, tiny: bool) -> None:
    """Training steps, and their share of the bf16 matrix rate measured before."""
    from torch.utils.flop_counter import FlopCounterMode

    ceiling = matrix_rate(tiny)
    say("bf16 matrix rate", ceiling, "TFLOP/s")
    torch.backends.cudnn.benchmark = True
    unet, same, fcn = (188, 64, 100) if tiny else (572, 256, 500)
    cases = [
        *(("unet", 16, unet), ("unet", 1, unet), ("unet", 4, unet)),
        *(("unet_same", 8, same), ("fcn8s", 1, fcn), ("fcn8s", 20, fcn)),
    ]
    for name, batch, side in [case for case in cases if not tiny or case[1] == 1]:
        figure = f"training step, {name} {side}, batch {batch}"
        with told(say, figure):
            step = _stepper(name, batch, side, tiny)
            with FlopCounterMode(display=False) as counter:
                step()
            device, host = milliseconds(step, 2 if tiny else 20)
            share = 100 * counter.get_total_flops() / (device * 1e9) / ceiling
            say(figure, device, "ms")
            say(f"{figure}: host", host, "ms")
            goal = "35" if (name, batch) == ("unet", 16) else ""
            say(f"{figure}: of the matrix rate", share, "%", goal, share >= 35 if goal else None)
            if (name, batch) == ("unet", 1):
                _as_a_graph(say, figure, step, device, 2 if tiny else 20)
            if CUDA:
                say(f"{figure}: memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
                torch.cuda.reset_peak_memory_stats()


def inference(say: Say, tiny: bool) -> None:
    """One image, eager and as a CUDA graph."""
    from segbench.inference.casts import kept_casts
    from segbench.inference.forward import geometry_of

    torch.backends.cudnn.benchmark = True
    for name, side, goal in (("unet", 64 if tiny else 512, 1.5), ("fcn8s", 100 if tiny else 500, 3.0)):
        figure = f"inference, {name} {side}"
        with told(say, figure):
            net, channels, _ = _network(name, tiny)
            net = net.to(DEVICE).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            given = geometry_of(net).input_for(side) if name == "unet" else side
            image = torch.rand(1, channels, given, given, device=DEVICE).contiguous(memory_format=torch.channels_last)

            def forward(net: nn.Module = net, image: torch.Tensor = image) -> torch.Tensor:
                with torch.autocast(DEVICE, torch.bfloat16):
                    scores: torch.Tensor = net(image)
                    return scores

            # Weights are cast once, not at each call.
            with torch.no_grad(), kept_casts(DEVICE):
                device, host = milliseconds(forward, 3 if tiny else 50)
                say(f"{figure}, input {given}", device, "ms", str(goal), device <= goal)
                say(f"{figure}: host", host, "ms")
                _as_a_graph(say, figure, forward, device, 3 if tiny else 50)


def _as_a_graph(say: Say, figure: str, way: Callable[[], Any], eager: float, repeats: int) -> None:
    """The same as a CUDA graph, and how much faster its replay is; on a CPU the call itself is timed."""
    replay = way
    if CUDA:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # What is allocated at first, as a momentum, is there before the capture.
            for _ in range(3):
                way()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way()
        replay = graph.replay
    took = milliseconds(replay, repeats)[0]
    say(f"{figure}: as a CUDA graph", took, "ms")
    if CUDA:
        # What decides whether it is offered, and no goal.
        say(f"{figure}: gain of a CUDA graph", eager / took, f"times; offered from {WORTH_IT} on")


def prediction(say: Say, tiny: bool) -> None:
    """A large image in tiles, from host memory and back."""
    from segbench.inference.stream import predict_stream
    from segbench.inference.windows import ReadableImage

    side = 300 if tiny else 8192
    net = _network("unet_same", tiny)[0].to(DEVICE).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    whole = torch.rand(1, side, side)
    image = ReadableImage(None, (side, side), lambda y0, y1, x0, x1: {"em": whole[:, y0:y1, x0:x1]})

    def predict() -> None:
        with torch.autocast(DEVICE, torch.bfloat16):
            for window in predict_stream(net, [image], ("semantic",), tile=128 if tiny else 1024, channels_last=True):
                window.probabilities["semantic"].cpu()

    predict()
    began = time.perf_counter()
    predict()
    wait()
    took = time.perf_counter() - began
    say(f"prediction, unet_same {side} x {side}", side**2 / took / 1e6, "Mpixel/s")


def checkpoint(say: Say, tiny: bool) -> None:
    """Copy the published U-Net and its momentum to the host, and write them."""
    net = _network("unet", tiny)[0].to(DEVICE)
    state = {"state_dict": net.state_dict(), "momentum": [p.detach().clone() for p in net.parameters()]}
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "checkpoint.pt"
    say("checkpoint: copy to the host", milliseconds(lambda: _on_host(state), 3, 1)[1], "ms")
    say("checkpoint: write", milliseconds(lambda: torch.save(state, path), 3, 1)[1], "ms")
    say("checkpoint: size", path.stat().st_size / 2**20, "MiB")
    path.unlink()


def _on_host(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.cpu()
    return {k: _on_host(v) for k, v in state.items()} if isinstance(state, dict) else [_on_host(v) for v in state]


# Pieces that need everything that a training needs

_TRAINING = ("lightning", "hydra", "omegaconf", "pydantic", "torchmetrics", "albumentations", "cv2", "numba", "scipy")


def _pytest(say: Say, marks: str) -> None:
    given = [sys.executable, "-m", "pytest", "-rfE", "-m", marks, "tests"]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    for line in (line for line in lines if line.startswith(("FAILED", "ERROR"))):
        say(line[:200], failed="a marked test")
    # 5: no test was collected.
    say("marked tests", lines[-1] if lines else done.stderr[-200:], "", "", done.returncode in (0, 5))


def tests(say: Say, tiny: bool) -> None:
    """The tests that are marked gpu."""
    if tiny:
        raise Skipped("the marked tests are those of a GPU")
    _pytest(say, "gpu and not slow")


def nccl(say: Say, tiny: bool) -> None:
    """Two GPUs: the end of a run, equal evaluation, one norm, another number of processes."""
    _pytest(say, "gpu and slow")


def _experiment(name: str, steps: int, tiny: bool) -> Any:
    from speed.timing import composed

    from segbench.experiment.build import build_experiment
    from segbench.runtime.hardware import settle

    small = ["model.width=4", "model.depth=2", "data.tile=60", "trainer.precision=32-true"] if tiny else []
    sizes = ("height=64", "width=64", "train=4", "val=2") if tiny else ("height=512", "width=512", "train=21", "val=3")
    config, _ = settle(
        composed(
            *("data=synthetic_em", "model=unet", "loss=weighted_cross_entropy", "augment=unet", "optimizer=sgd"),
            *(f"name={name}", f"data.num_workers={0 if tiny else 4}", "data.tile=572", "data.repeats=10", "threads=1"),
            *(*(f"data.{size}" for size in sizes), f"trainer.accelerator={'gpu' if CUDA else 'cpu'}"),
            *("trainer.check_val_every_n_epoch=null", f"trainer.max_steps={steps}", "task.compile=false"),
            *(f"trainer.val_check_interval={3 if tiny else 500}", "callbacks.panels=null", "callbacks.extremes=null"),
            *small,
        )
    )
    shutil.rmtree(WORK / name, ignore_errors=True)
    (WORK / name / "checkpoints").mkdir(parents=True)
    return build_experiment(config, WORK / name)


def synchronisations(say: Say, tiny: bool) -> None:
    """How often the host waits for the GPU in a training step, and for data."""
    import lightning

    class Count(lightning.Callback):
        """Has torch warn of calls that wait, from the tenth step to the last but one, and times what is between."""

        def __init__(self) -> None:
            self.waited: list[float] = []
            self.took: list[float] = []
            self.ended: float | None = None
            self.began = 0.0

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.began = time.perf_counter()
            if CUDA and trainer.global_step == 10:
                torch.cuda.set_sync_debug_mode("warn")
            if self.ended is not None:
                self.waited.append(self.began - self.ended)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.ended = time.perf_counter()
            self.took.append(self.ended - self.began)
            if CUDA and trainer.global_step == number - 1:
                torch.cuda.set_sync_debug_mode("default")

    number = 6 if tiny else 200
    experiment, count = _experiment("synchronisations", number, tiny), Count()
    experiment.trainer.callbacks.append(count)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        experiment.trainer.fit(experiment.task, experiment.data)
    met = [each for each in caught if "synchronizing CUDA operation" in str(each.message)]
    if CUDA:
        each_step = len(met) / (number - 11)
        say("host synchronisations in a training step", each_step, "", "0.1", each_step <= 0.1)
    for place in sorted({f"{each.filename.removeprefix(str(ROOT))}:{each.lineno}" for each in met})[:10]:
        say(f"a synchronisation at {place}")
    whole = sum(count.waited) + sum(count.took)
    say("data wait", 100 * sum(count.waited) / whole, "% of the time of steps", "10", sum(count.waited) <= whole / 10)


def busy(say: Say, tiny: bool) -> None:
    """The share of a training's wall time, validations and checkpoints included, in which the GPU computes."""
    from torch.profiler import ProfilerActivity, profile

    experiment = _experiment("busy", 6 if tiny else 1000, tiny)
    activities = [ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU]
    began = time.perf_counter()
    with profile(activities=activities) as profiler:
        experiment.trainer.fit(experiment.task, experiment.data)
        wait()
        took = time.perf_counter() - began
    if not CUDA:
        raise Skipped("the share of a GPU's time")
    computed = sum(each.self_device_time_total for each in profiler.key_averages()) / 1e6
    say("training of 1000 steps, two validations", took, "s")
    say("GPU busy", 100 * computed / took, "% of the wall time", "90", computed >= 0.9 * took)


def convergence(say: Say, tiny: bool) -> None:
    """The published U-Net on one fold of ISBI 2012, to its end; it goes on at each call."""
    data = WORK / "isbi2012"
    if not (data / "train-volume.tif").is_file():
        raise Skipped(f"no ISBI 2012 stacks in {data.relative_to(ROOT)}: carry train-volume.tif and the others there")
    run = WORK / "unet_isbi_em"
    entry = [sys.executable, "-m", "segbench", "train"]
    fresh = ["experiment=unet_isbi_em", f"data.root={data}", "data.fold=0", f"hydra.run.dir={run}"]
    given = [f"resume={run}"] if (run / "config.yaml").is_file() else fresh
    process = subprocess.Popen([*entry, *given], cwd=ROOT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=400)
    if process.poll() is None:
        # It writes its checkpoint and ends.
        process.terminate()
        process.wait()
    results = run / "results.json"
    if not results.is_file():
        raise Unfinished(f"in {run.relative_to(ROOT)}")
    recorded = json.loads(results.read_text())
    for name in ("rand_error", "pixel_error", "warping_error"):
        say(f"published U-Net, fold 0: {name}", recorded["metrics"].get(f"test/{name}"))
    say("published U-Net, fold 0: training", recorded["timing"]["fit_s"] / 60, "min")


PIECES: Mapping[str, Piece] = {
    "checks": Piece(checks),
    "rate": Piece(rate),
    "steps": Piece(steps),
    "inference": Piece(inference),
    "tests": Piece(tests, (*_TRAINING, "pytest", "hypothesis"), 1),
    "synchronisations": Piece(synchronisations, _TRAINING),
    "busy": Piece(busy, _TRAINING),
    "prediction": Piece(prediction),
    "checkpoint": Piece(checkpoint),
    "nccl": Piece(nccl, (*_TRAINING, "pytest", "hypothesis"), 2),
    "convergence": Piece(convergence, _TRAINING, 1, goes_on=True),
}
"""The most telling first."""
