"""Measure threadwell, and the other servers that are installed, and write tables and figures.

    python -m benchmarks                                    everything: half an hour
    python -m benchmarks --quick --servers threadwell       a minute, to see that it works
    python -m benchmarks --cases cpu,memory --servers "threadwell; granian"

Run it in a checkout, with a Python that has threadwell and the servers to compare with. FOLDER gets
results.json, tables.md, and the figures as SVG, light and dark.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .clients import load_client
from .measures import MEASURES, Measure, threads
from .plots import figures
from .servers import KINDS, DidNotStart, Kind
from .tables import tables

CASES = (*(measure.name for measure in MEASURES), "threads")
Results = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Measure and write; 1 if a server could not be measured."""
    options = parse(arguments)
    # so that the servers are ended too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kinds = [kind for kind in KINDS if kind.name in options.servers]
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    results: Results = {"cases": {}}
    if options.update and file.exists():
        results = json.loads(file.read_text("utf-8"))
        for name in ("python", "system", "cores"):
            if (there := results["about"][name]) != (here := about()[name]):
                sys.stderr.write(f"--update: the figures in {file} are of {there}, not {here}\n")
                return 2
    results |= {"about": about(), "servers": results.get("servers", {}) | versions(kinds)}
    failures = 0
    for _, failed in measure(results["cases"], kinds, options):
        failures += failed
        file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (folder / "tables.md").write_text(tables(results), "utf-8")
    for name, text in figures(results).items():
        (folder / name).write_text(text, "utf-8")
    sys.stdout.write(f"\n{tables(results)}\nwritten to {folder}\n")
    return 1 if failures else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options. Ends with code 2 if one of them is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    installed = [kind.name for kind in KINDS if kind.is_installed()]
    standard = [kind.name for kind in KINDS if kind.standard and kind.is_installed()]
    parser.add_argument("--quick", action="store_true", help="measure briefly; no figure is good")
    parser.add_argument("--cases", default=",".join(CASES), help="default: %(default)s")
    parser.add_argument(
        "--servers",
        default=";".join(standard),
        help="separated by semicolons; those that are installed: " + "; ".join(installed),
    )
    parser.add_argument("--output", default="benchmark-results", metavar="FOLDER")
    parser.add_argument(
        "--update", action="store_true", help="keep what FOLDER/results.json has of other cases"
    )
    parser.add_argument(
        "--free-threaded", default="", metavar="PYTHON", help="for the case threads; has threadwell"
    )
    options = parser.parse_args(arguments)
    options.cases = _chosen(parser, "--cases", options.cases, ",", CASES)
    options.servers = _chosen(parser, "--servers", options.servers, ";", installed)
    return options


def _chosen(
    parser: argparse.ArgumentParser, flag: str, text: str, separator: str, known: Iterable[str]
) -> list[str]:
    known = list(known)
    chosen = [word.strip() for word in text.split(separator)]
    for word in chosen:
        if word not in known:
            listed = f"{separator} ".join(known)
            parser.error(f"{flag}: {word!r} is none of: {listed}")
    return chosen


def measure(
    cases: dict[str, Any], kinds: list[Kind], options: argparse.Namespace
) -> Iterator[tuple[str, bool]]:
    """Measure into `cases`, and print what was found. Yields each case, and whether it failed."""
    for each in MEASURES:
        if each.name not in options.cases:
            continue
        if not each.is_possible():
            say(f"{each.name}: left out, because {each.program} is not installed")
            continue
        found = cases.setdefault(each.name, {})
        for number in range(1 if options.quick else each.passes):
            for kind in kinds:
                yield each.name, not measure_one(each, kind, found, number, options.quick)
    if "threads" in options.cases:
        ours = [kind for kind in kinds if kind.name == "threadwell"]
        cases["threads"] = threads(ours, options.free_threaded, options.quick)
        say(f"threads: {json.dumps(cases['threads'])}")
        yield "threads", False


def measure_one(
    measure: Measure, kind: Kind, found: dict[str, Any], number: int, quick: bool
) -> bool:
    """Measure a server for the pass `number`, into `found`; whether it could be measured."""
    reason = measure.lacks(kind)
    failed = False
    if reason:
        result = {"lacks": reason}
    else:
        try:
            result = measure.run(kind, quick)
        except (DidNotStart, OSError, RuntimeError, subprocess.SubprocessError) as error:
            failed = True
            result = {"lacks": "could not be measured"}
            say(f"{measure.name}, {kind.name}: {type(error).__name__}: {error}")
    if number and measure.join and not failed and "lacks" not in found[kind.name]:
        result = measure.join(found[kind.name], result)
    found[kind.name] = result
    say(f"{measure.name}, {kind.name}: {json.dumps(result)}")
    return not failed


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def versions(kinds: list[Kind]) -> dict[str, str]:
    return {kind.name: kind.version() for kind in kinds}


def about() -> dict[str, str | int]:
    """What the figures depend on."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    build = "with" if "--enable-optimizations" in options else "without"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {build} PGO",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "load": load_client(),
        "commit": _commit(),
    }


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
