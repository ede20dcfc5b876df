"""What a command cost: wall seconds, CPU seconds of every process it started, and the most memory they held at once."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Cost:
    """Of one command. `cpu` is user plus system seconds of the whole process tree, `peak_gb` its resident memory."""

    wall: float
    cpu: float
    peak_gb: float


class CommandFailed(RuntimeError):
    """The measured command ended with an error; its last output is in the message."""


def run_measured(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end, and its children to theirs.

    Raises:
        CommandFailed: with the last lines of `log`.
    """
    _adopt_orphans()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
        watch = _Watch(child.pid)
        watch.start()
        code = child.wait()
        # A JVM outlives the Python that started it by a moment; its time is part of the cost.
        _reap_orphans()
        wall = time.monotonic() - began
        watch.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise CommandFailed(f"{' '.join(map(str, command))} ended with {code}:\n{tail}")
    reaped = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return Cost(round(wall, 2), round(max(reaped, watch.cpu), 2), round(watch.peak / 1e9, 2))


def tree_cpu(root: psutil.Process | None = None) -> float:
    """User and system seconds so far of a process and everything below it, this process when none is given."""
    top = root or psutil.Process()
    return sum(_cpu(p) for p in [top, *top.children(recursive=True)])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class _Watch(threading.Thread):
    """Looks at the process tree ten times a second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self._cpu: dict[tuple[int, float], float] = {}
        self.peak = 0

    @property
    def cpu(self) -> float:
        """The most each process was seen to have used; what a process does after the last look is missing."""
        return sum(self._cpu.values())

    def stop(self) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.1):
            held = 0
            # Orphans come to us, so our own children are the tree; the benchmark runs one command at a time.
            for p in me.children(recursive=True):
                try:
                    with p.oneshot():
                        held += p.memory_info().rss
                        self._cpu[(p.pid, p.create_time())] = sum(p.cpu_times()[:2])
                except psutil.Error:
                    continue
            self.peak = max(self.peak, held)


def _cpu(p: psutil.Process) -> float:
    try:
        return sum(p.cpu_times()[:2])
    except psutil.Error:
        return 0.0


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def _reap_orphans(timeout: float = 60.0) -> None:
    if sys.platform != "linux":
        return
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.02)
