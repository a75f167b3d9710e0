"""Where and how a command runs: folder, device, precision, threads, seed, progress; the same for every method."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from cyclopts.validators import Number

from morphem.errors import InputError
from morphem.io.files import replacing

T = TypeVar("T")
NOTICE = "Notice: "
"""What a notice in run.log starts with."""


@dataclass(frozen=True)
class Compute:
    """How to compute."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of network products; auto takes bfloat16 where it is measured to be at least twice as fast."""
    threads: int = 0
    """CPU threads; 0 takes what OMP_NUM_THREADS says, or else all that this process may use."""
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))] = 0
    """Of everything random: equal seeds give equal results, at one precision and number of threads."""

    def apply(self) -> str:
        """Set the number of threads and return the device, `cpu` or `cuda`. A GPU asked for and absent is refused."""
        import numba
        import torch

        threads = self.threads or _threads_allowed()
        if threads < 1:
            raise InputError(f"--threads {self.threads}: expected 0 (all) or a positive number")
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        torch.set_num_threads(threads)  # the last: where both share OpenMP, Numba's pool begins with all cores
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: no CUDA device is visible here; use --device cpu or auto")
        return "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"


def _threads_allowed() -> int:
    """The outermost number in OMP_NUM_THREADS, or how many cores this process may use."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) else len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Output:
    """Where a command writes."""

    output: Annotated[Path, Parameter(alias=["-o", "--outdir"])]
    """Folder to write."""
    overwrite: Annotated[bool, Parameter(negative="")] = False
    """Replace what the folder holds."""
    resume: Annotated[bool, Parameter(negative="")] = False
    """Go on from the last checkpoint of the same command."""


@dataclass(frozen=True)
class Run:
    """One run's folder and how it computes. `log` says a line to the user, `record` keeps a line of history."""

    folder: Path
    compute: Compute = Compute()
    resume: bool = False

    @property
    def seed(self) -> int:
        return self.compute.seed

    def log(self, text: str) -> None:
        """One line on the terminal (stderr) and in run.log."""
        say(text)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "run.log").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def notice(self, text: str) -> None:
        """Something that the user should know of the input; the report repeats it."""
        self.log(NOTICE + text)

    def record(self, **values: Any) -> None:
        """One line of history.jsonl."""
        with (self.folder / "history.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """What has been recorded so far."""
        path = self.folder / "history.jsonl"
        return list(_whole_lines(path.read_text())) if path.exists() else []

    def forget_history_after(self, epoch: int, part: str = "") -> None:
        """Drop a part's records of later epochs: they are about to be made again."""
        kept = [line for line in self.history() if line.get("part", "") != part or line.get("epoch", 0) <= epoch]
        with replacing(self.folder / "history.jsonl") as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))


class Stop:
    """Ctrl-C and SIGTERM, held back while the state of the work is not whole; the second one is not."""

    def __init__(self) -> None:
        self._asked: tuple[int, FrameType | None] | None = None
        self._former: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self._asked is not None

    def now(self) -> None:
        """Do what the signal would have done."""
        assert self._asked is not None
        number, frame = self._asked
        self._former[number](number, frame)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._asked = number, frame
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator["Stop"]:
        """Hold the signals back until `now`, or the end, where they come through."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                self._former[number] = signal.signal(number, self._hold)
        try:
            yield self
        finally:
            self._restore()
        if self.asked:
            self.now()


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    """The records of JSON lines; one that a killed run left half-written is passed over."""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def say(text: str) -> None:
    """One line to the user, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int, text: str, unit: str = "images") -> Iterator["Progress"]:
    """A bar with rate and time left on a terminal; without one, a line a minute."""
    bar = Progress(total, text, unit)
    with bar.shown():
        yield bar


class Progress:
    """Counts work done; `advance(count, note)` moves the bar."""

    def __init__(self, total: int, text: str, unit: str):
        self.total, self.text, self.unit, self.note = total, text, unit, ""
        self.done = self.before = 0
        self.start = self.said = time.monotonic()
        self._rich: Any = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            self._rich = (bar, bar.add_task(self.text, total=self.total, note=""))
            yield

    def start_at(self, done: int) -> None:
        """Work that was done before; it does not count for the rate."""
        self.done = self.before = done

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        note = f"{self.rate:,.0f} {self.unit}/s {note}"
        if self._rich:
            bar, task = self._rich
            bar.update(task, completed=self.done, note=note)
        elif time.monotonic() - self.said > 60:
            self.said = time.monotonic()
            left = (self.total - self.done) / max(self.rate, 1e-9)
            print(
                f"{self.text}: {self.done:,} of {self.total:,}, {note}, {left:,.0f} s left", file=sys.stderr, flush=True
            )


def tracked(items: Iterable[T], total: int, text: str, unit: str = "images", size=lambda item: 1) -> Iterator[T]:
    """The items, with progress."""
    with progress(total, text, unit) as bar:
        for item in items:
            yield item
            bar.advance(size(item))
