"""How fast and how small the Kineto reader is beside HolisticTraceAnalysis on the same files.

Run from the repository's root::

    python bench/readers.py                # the real trace, and one ten times its size
    python bench/readers.py FILE.json.gz   # any Kineto trace

Each tool loads each file in a process of its own, ``--repeat`` times in turn; the fastest run
counts. HolisticTraceAnalysis is installed from PyPI into a virtual environment of its own under
``$KAT_CACHE`` (default ``~/.cache/kat-otel``), and runs with its default parser, without its
memory profiling, which would slow it down. What is timed: for HTA
``Trace(...).parse_traces()``, which reads the events into a data frame and links launches to
kernels; for us ``read()``, which does that and also nests host spans and assigns steps and ids.
Peak memory is the process's high-water mark (VmHWM), absolute and above the same interpreter
after its imports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

HTA_VERSION = "0.5.0"
COPIES = 10
ROOT = Path(__file__).resolve().parent.parent
TRACES = Path(os.environ.get("KAT_TRACES", ROOT.parent / "shared" / "traces"))
REAL = TRACES / "hta_ddp_rank1of2" / "df_index_resolver.json.gz"

_MEASURE = r"""
import json, re, sys, time
def peak():  # not ru_maxrss, which exec inherits from the parent process
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
t = time.perf_counter()
{imports}
imported = time.perf_counter() - t
before = peak()
t = time.perf_counter()
result = {load}
seconds = time.perf_counter() - t
after = peak()
print(json.dumps(dict(imports=imported, seconds=seconds, before=before, peak=after,
                      rows={rows})))
"""
OURS = _MEASURE.format(
    imports="from kat_otel.readers import read",
    load="read([sys.argv[1]])",
    rows="len(result.table)",
)
THEIRS = _MEASURE.format(
    imports="import logging; from hta.common.trace import Trace; logging.disable()",
    load="(lambda t: (t.parse_traces(use_multiprocessing=False, use_memory_profiling=False), t)[1])"
    "(Trace(trace_files={0: sys.argv[1]}))",
    rows="len(result.traces[0])",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    cache = Path(os.environ.get("KAT_CACHE", Path.home() / ".cache" / "kat-otel"))
    hta = hta_python(cache)
    if options.file is None and not REAL.exists():
        sys.exit("real traces not found: set KAT_TRACES, or name a file")
    files = [options.file] if options.file else [REAL, enlarged(REAL, cache)]
    for file in files:
        compare(file, hta, options.repeat)


def compare(file: Path, hta: Path, repeat: int) -> None:
    ours, theirs = [], []
    for _ in range(repeat):
        ours.append(measure(Path(sys.executable), OURS, file))
        theirs.append(measure(hta, THEIRS, file))
    we, they = (min(runs, key=lambda run: run["seconds"]) for runs in (ours, theirs))
    above = {"we": we["peak"] - we["before"], "they": they["peak"] - they["before"]}
    print(
        f"{file.name} ({file.stat().st_size / 1e6:.1f} MB): "
        f"{they['seconds'] / we['seconds']:.1f} times as fast, "
        f"1/{above['they'] / above['we']:.1f} of the memory above the imports, "
        f"1/{they['peak'] / we['peak']:.1f} of the whole process"
    )
    for name, run in (("kat-otel", we), (f"HTA {HTA_VERSION}", they)):
        print(
            f"  {name:10} {run['seconds']:7.2f} s   {run['peak'] - run['before']:8.0f} MiB above, "
            f"{run['peak']:6.0f} MiB whole   imports {run['imports']:.2f} s   {run['rows']:,} rows"
        )


def measure(python: Path, program: str, file: Path) -> dict[str, float]:
    done = subprocess.run(
        [python, "-c", program, str(file)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


def hta_python(cache: Path) -> Path:
    home = cache / "hta-venv"
    python = home / "bin" / "python"
    wanted = f"HolisticTraceAnalysis=={HTA_VERSION}"
    version = "import importlib.metadata as m; print(m.version('HolisticTraceAnalysis'))"
    found = ""
    if python.exists():
        run = subprocess.run([python, "-c", version], capture_output=True, text=True, check=False)
        found = run.stdout.strip()
    if found != HTA_VERSION:
        print(f"installing {wanted} into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", wanted], check=True)
    return python


def enlarged(file: Path, cache: Path) -> Path:
    """The trace played ``COPIES`` times in a row: times, correlation ids and steps go on."""
    target = cache / f"{file.name.removesuffix('.json.gz')}-x{COPIES}.json.gz"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with gzip.open(file) as source:
        trace = json.load(source)
    events = trace.pop("traceEvents")
    timed = [e for e in events if e.get("ph") == "X" and isinstance(e.get("ts"), int)]
    length = max(e["ts"] + e["dur"] for e in timed) - min(e["ts"] for e in timed) + 1000
    part = target.with_suffix(".part")
    with gzip.open(part, "wt", compresslevel=6) as out:
        out.write(json.dumps(trace)[:-1] + ', "traceEvents": [\n')
        for copy in range(COPIES):
            for place, event in enumerate(events):
                out.write(",\n" if copy or place else "")
                out.write(json.dumps(shifted(event, copy, length)))
        out.write("\n]}")
    part.rename(target)
    return target


def shifted(event: dict, copy: int, length: int) -> dict:
    event = dict(event)
    if isinstance(event.get("ts"), (int, float)):
        event["ts"] += copy * length
    if isinstance(event.get("id"), int):
        event["id"] += copy << 24
    if isinstance(args := event.get("args"), dict):
        moved = {k: args[k] + (copy << 24) for k in ("correlation", "External id") if k in args}
        event["args"] = args | moved
    name, mark, number = str(event.get("name", "")).partition("ProfilerStep#")
    if mark and not name:
        event["name"] = f"{mark}{int(number) + 5 * copy}"
    return event


if __name__ == "__main__":
    main()
