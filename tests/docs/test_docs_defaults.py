"""The script of docs/defaults: its table, and the copies of a model that it compares."""

import importlib.util
from pathlib import Path
from types import ModuleType

from fommctl.host import load_host
from fommctl.models.loading import load_model

SCRIPT = Path(__file__).parents[2] / "docs/defaults/measure.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_defaults_measure", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def summary(mean: float | None, interval: list[float] | None = None) -> dict[str, object]:
    return {"mean": mean, "ci95": interval}


def test_candidates_beside_each_other_and_against_the_first() -> None:
    found = {
        "clips": 12,
        "frames": 480,
        "models": {
            "published": {"metrics": {"mouth.correlation": summary(0.7, [0.6, 0.8]), "mkr.strict": summary(None)}},
            "smooth": {"metrics": {"mouth.correlation": summary(0.69, [0.59, 0.79]), "mkr.strict": summary(None)}},
            "absolute": {"metrics": {"mouth.correlation": summary(0.4, None), "mkr.strict": summary(None)}},
        },
        "differences": [
            {"metric": metric, "model": "published", "minus": name, **less}
            for metric, name, less in (
                ("mouth.correlation", "smooth", summary(0.01, [-0.01, 0.03])),
                ("mouth.correlation", "absolute", summary(0.3, [0.2, 0.4])),
            )
        ],
    }
    assert list(script().table(found, ["published", "smooth", "absolute"])) == [
        "12 pairs, 480 frames",
        "",
        "| | published | smooth | absolute |",
        "|---|---|---|---|",
        "| mouth, correlation | 0.700 [0.600, 0.800] | 0.690 [0.590, 0.790] | 0.400 |",
        "| minus published |  | -0.010 [-0.030, +0.010] | **-0.300** [-0.400, -0.200] |",
    ]


def test_a_candidate_is_the_model_with_other_defaults(tmp_path: Path) -> None:
    path = script()._write(None, "smooth", {"smooth": "true", "source_width": "0.4"}, tmp_path)
    host = load_host()
    copy, built_in = load_model(str(path), host), load_model(None, host)
    given = copy.preset.pairs().defaults
    assert given is not None
    assert (given.smooth, given.source_width) == (True, 0.4)
    for name, network in copy.backend.modules().items():
        own = built_in.backend.modules()[name].state_dict()
        assert all((tensor == own[key]).all() for key, tensor in network.state_dict().items())


def test_every_candidate_is_what_a_preset_may_say() -> None:
    module = script()
    for keys in module.CANDIDATES.values():
        sets = [f"animate_params.defaults.{key}={value}" for key, value in keys.items()]
        assert load_model(None, load_host(), sets=sets).preset.pairs().defaults is not None
