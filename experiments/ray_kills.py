"""Kill a search by Ray at random moments, resume it each time, and compare its sequences with those of one process.

    python experiments/ray_kills.py POSTERIOR BANK OUT [--kills 20]

POSTERIOR, BANK: run directories of `nogs fit-posterior` and `nogs build-bank`. The process that starts the search is
killed ``--kills`` times, and one of its two workers as often. Prints one JSON object: kills of each kind, whether the
sequences are the same bits, and whether each chunk has exactly one row in the log. Hardware: two cores, minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

STARTING = 8.0
"""Seconds in which Ray starts, before anything can be lost."""


def workers_of(driver: int) -> list[int]:
    """Return the processes of a search's actors: those of Ray that descend from ``driver``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"ray::_Worker" in (entry / "cmdline").read_bytes():
                ancestor = int(entry.name)
                while ancestor > 1 and ancestor != driver:
                    ancestor = int((Path("/proc") / str(ancestor) / "stat").read_text().rpartition(")")[2].split()[1])
                if ancestor == driver:
                    found.append(int(entry.name))
        except (OSError, ValueError):  # it ended meanwhile
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("posterior")
    parser.add_argument("bank")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    draw = random.Random(0)

    def search(name: str, *engine: str) -> subprocess.Popen[bytes]:
        command = "from nogs.cli import main; main()"
        flags = ("--posterior", arguments.posterior, "--bank", arguments.bank, "--out", str(arguments.out / name))
        words = [sys.executable, "-c", command, "search", *flags, "--device", "cpu", "--resume", *engine]
        return subprocess.Popen(words, stderr=subprocess.DEVNULL)

    assert search("local").wait() == 0
    drivers, workers, round_number = 0, 0, 0
    while drivers < arguments.kills or workers < arguments.kills:
        round_number += 1
        name = f"ray-{round_number}"
        while (running := search(name, "--engine", "ray", "--jobs", "2")).poll() is None:
            time.sleep(STARTING + draw.random() * 6)
            for victim in workers_of(running.pid):
                if workers < arguments.kills:
                    os.kill(victim, signal.SIGKILL)
                    workers += 1
            time.sleep(draw.random() * 8)
            if running.poll() is None and drivers < arguments.kills:
                running.kill()
                drivers += 1
            elif running.wait() == 0:
                break
            running.wait()
            print(f"{drivers} searches and {workers} workers killed", file=sys.stderr, flush=True)
    local = (arguments.out / "local" / "sequences.safetensors").read_bytes()
    same, once = True, True
    for number in range(1, round_number + 1):
        folder = arguments.out / f"ray-{number}"
        names = [json.loads(row)["name"] for row in (folder / "log.jsonl").read_text().splitlines()]
        same &= (folder / "sequences.safetensors").read_bytes() == local
        once &= len(names) == len(set(names))
    print(json.dumps({"searches_killed": drivers, "workers_killed": workers, "same_bits": same, "each_row_once": once}))


if __name__ == "__main__":
    main()
