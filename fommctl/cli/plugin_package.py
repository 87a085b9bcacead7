"""What `fommctl plugins check` looks at beside the specs: loading, version of the API, summaries, cost of importing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fommctl.api.version import API_VERSION, DECLARATION
from fommctl.cli.plugin_checks import Check
from fommctl.host import RESTRICT, Host

if TYPE_CHECKING:
    from fommctl.plugin import PluginInfo

HEAVY = ("torch", "av")
"""Never loaded by importing a plugin or asking its hooks."""
SLOW_ONES = ("numpy", "scipy", "pandas", "cv2", "PIL", "matplotlib", "pydantic", "sklearn", "transformers")
"""Better not."""
SLOW = 0.5
"""Seconds of every command, after which it is said."""
LONGEST_SUMMARY = 120
"""Characters: what fits a line of a table."""
TIMEOUT = 120
_PROBE = """
import importlib, json, sys, time
import fommctl.host
before = set(sys.modules)
start = time.perf_counter()
importlib.import_module({module!r})
imported = time.perf_counter()
host = fommctl.host.load_host(check=False)
loaded = time.perf_counter()
host.plugins
asked = time.perf_counter()
new = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
print("\\n" + json.dumps({{"seconds": imported - start + asked - loaded, "new": new}}))
"""


def check_package(info: "PluginInfo", host: Host) -> list[Check]:
    """The plugin itself, in four respects; only the first where it does not load."""
    if info.problem:
        read = "Versions" if "version" in info.problem else "Troubleshooting"
        return [Check("plugin", "loading", problem=info.problem, read=read, traceback=info.traceback)]
    nothing = None if info.registers else "it registers nothing"
    return [Check("plugin", "loading", note=nothing), _version(info), _summaries(info, host), _import(info)]


def _version(info: "PluginInfo") -> Check:
    if info.api is not None:
        return Check("plugin", "version of the API", note=f"passed: {info.api}")
    advice = f'Write {DECLARATION} = "{API_VERSION}" beside the hooks.'
    problem = "it does not say which version of the API it was written for"
    return Check("plugin", "version of the API", problem=problem, advice=advice, read="Versions")


def _summaries(info: "PluginInfo", host: Host) -> Check:
    faults = list(_faults(info, host))
    if not faults:
        return Check("plugin", "summaries")
    advice = f"One line of at most {LONGEST_SUMMARY} characters says what it is."
    return Check("plugin", "summaries", problem="; ".join(faults), advice=advice, read="Hooks")


def _faults(info: "PluginInfo", host: Host) -> Iterator[str]:
    for kind, names in info.registers.items():
        for name in names if kind != "hook" else ():
            spec = getattr(host, f"{kind}s").get(name)
            summary = spec.summary if spec else "offered twice"
            # A preset may have its summary in its file.
            if not summary.strip() and kind != "preset":
                yield f"the {kind} {name!r} has none"
            elif "\n" in summary:
                yield f"that of the {kind} {name!r} has {summary.count(chr(10)) + 1} lines"
            elif len(summary) > LONGEST_SUMMARY:
                yield f"that of the {kind} {name!r} has {len(summary)} characters"


def _import(info: "PluginInfo") -> Check:
    """In a process of its own, for in this one everything may be loaded already."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE.format(module=info.entry_point.partition(":")[0].strip())],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
            env={**os.environ, "PYTHONPATH": paths, RESTRICT: info.name},
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or ""
        problem = f"importing it in a process of its own fails: {error if done is None else 'it ends the process'}"
        return Check("plugin", "import", problem=problem, read="Life cycle", traceback=str(said) or None)
    heavy, slow = ([name for name in names if name in told["new"]] for names in (HEAVY, SLOW_ONES))
    cost = f"{told['seconds'] * 1000:.3g} ms of every command"
    if heavy:
        advice = "Import it inside the functions that the specs name (build, schema)."
        problem = f"importing it, or asking its hooks, loads {' and '.join(heavy)} ({cost})"
        return Check("plugin", "import", problem=problem, advice=advice, read="Life cycle")
    loads = f"; it loads {', '.join(slow)}, which could wait for build" if slow else ""
    return Check("plugin", "import", note=f"passed: {cost}{', slow' if told['seconds'] > SLOW else ''}{loads}")
