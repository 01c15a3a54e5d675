"""How the service answers under load: requests a second, p50 and p99, from 1, 8 and 64 clients on loopback.

    python benchmarks/serve.py --seconds 10 --out out/bench/serve.json

Starts a server of its own on a free port with the shipped phantom model. Each client asks, over one kept-alive
connection each, the same kind of question again and again: `health` (the service itself), `cached` (an explanation that
was made before), `film` (the pixels), `scores` (cached), `ask` (a rectangle at another place each time). What the
server refuses because its queue is full (429) is counted by itself and is no answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

MODEL = "lucency:phantom"
Call = Callable[[httpx.Client, int], httpx.Response]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lucency", "serve", "--data", folder, "--port", "0", "--model", MODEL]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://[\w.:]+", server.stdout.readline())
            assert found is not None
            rows = list(measured(found[0], server.pid, given.clients, given.seconds))
        finally:
            server.terminate()
            server.wait(30)
    about = {"cores": os.cpu_count(), "load": os.getloadavg(), "machine": platform.processor() or platform.machine()}
    for row in rows:
        print(
            "{what:8} {clients:3} clients  {rate:8.1f}/s  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  busy {busy}".format(
                **row
            )
        )
    print(json.dumps(about))
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def measured(address: str, pid: int, clients: list[int], seconds: float) -> Any:
    root = address + "/api/v1/"
    with httpx.Client(base_url=root, timeout=300) as one:
        scan = one.post("gallery/demo").json()["scan"]
        question = {"scan": scan, "model": MODEL}
        one.post("scores", json=question)
        asked = {**question, "parameters": {"patch": 32}, "removal": "mean"}
        one.post("explanations", json=asked)
        one.post("ask", json={**question, "remove": box(0)})

    calls: dict[str, Call] = {
        "health": lambda http, i: http.get("health"),
        "cached": lambda http, i: http.post("explanations", json=asked),
        "film": lambda http, i: http.get(f"scans/{scan}/film"),
        "scores": lambda http, i: http.post("scores", json=question),
        "ask": lambda http, i: http.post("ask", json={**question, "remove": box(i)}),
    }
    for what, call in calls.items():
        for count in clients:
            yield {"what": what, "clients": count, "memory_mb": memory(pid), **load(root, call, count, seconds)}


def box(i: int) -> dict[str, Any]:
    row, column = 100 + (37 * i) % 300, 60 + (53 * i) % 300
    return {"rectangle": {"rows": [row, row + 70], "columns": [column, column + 70]}}


def load(root: str, call: Call, clients: int, seconds: float) -> dict[str, Any]:
    times: list[float] = []
    busy = [0]
    ready = threading.Barrier(clients + 1)

    def work(number: int) -> None:
        mine: list[float] = []
        i = number * 1000
        # Without certificates, which take longer to load than many answers.
        with httpx.Client(base_url=root, timeout=300, verify=False) as http:
            call(http, i)
            ready.wait()
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                i += 1
                began = time.perf_counter()
                answer = call(http, i)
                if answer.status_code == 429:
                    busy[0] += 1
                    time.sleep(0.05)
                else:
                    answer.raise_for_status()
                    mine.append(time.perf_counter() - began)
        times.extend(mine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    ms = 1000 * np.array(times or [np.nan])
    p50, p99 = (float(v) for v in np.percentile(ms, [50, 99]))
    return {"rate": len(times) / took, "p50": p50, "p99": p99, "answers": len(times), "busy": busy[0]}


def memory(pid: int) -> float:
    """Megabytes of a process, where the system tells."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return float("nan")


if __name__ == "__main__":
    main()
