"""The machine, from files as Linux writes them."""

import platform

import pytest

from fommctl.machine import processor
from fommctl.stages.doctor import machine

INTEL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\nflags\t\t: fpu sse2 avx2 avx512f amx_bf16\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU implementer\t: 0x41\n"


def test_processor(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(INTEL * 2)
    assert processor(info) == (
        "Intel(R) Xeon(R) Platinum 8480+",
        frozenset({"fpu", "sse2", "avx2", "avx512f", "amx_bf16"}),
    )
    info.write_text(ARM)
    assert processor(info) == (platform.machine(), frozenset({"fp", "asimd", "bf16"}))


def test_memory(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\nHugePages_Total: 0\n")
    assert machine.memory(info) == (16000000 * 1024, 8000000 * 1024)


def test_limits_of_cgroups(tmp_path):
    """Version 2: the lowest of the own group's limits and of those above it."""
    own = tmp_path / "cgroup"
    own.write_text("0::/jobs/night\n")
    root = tmp_path / "root"
    (root / "jobs" / "night").mkdir(parents=True)
    (root / "jobs" / "memory.max").write_text("4294967296\n")
    (root / "jobs" / "night" / "memory.max").write_text("max\n")
    (root / "jobs" / "cpu.max").write_text("250000 100000\n")
    (root / "jobs" / "night" / "cpu.max").write_text("max 100000\n")
    assert machine.cgroup_memory(root, own) == 4 * 2**30
    assert machine.cgroup_cores(root, own) == 2.5


def test_limits_of_old_cgroups(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("9:memory:/a\n4:cpu,cpuacct:/a\n")
    root = tmp_path / "root"
    (root / "memory" / "a").mkdir(parents=True)
    (root / "cpu" / "a").mkdir(parents=True)
    (root / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (root / "memory" / "a" / "memory.limit_in_bytes").write_text("1000\n")
    (root / "cpu" / "a" / "cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu" / "a" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.cgroup_memory(root, own) == 1000
    assert machine.cgroup_cores(root, own) is None
    (root / "cpu" / "a" / "cpu.cfs_quota_us").write_text("50000\n")
    assert machine.cgroup_cores(root, own) == 0.5


def test_a_quota_is_noted(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 16)
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 2.5)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    (finding,) = machine.check_cores()
    assert finding.value == "16 of 64, of which the cgroup allows the time of 2.5"
    assert finding.level == "note"
    assert finding.advice.endswith("set OMP_NUM_THREADS=2.")


def test_little_memory_is_noted(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (64 * 2**30, 3 * 2**30))
    monkeypatch.setattr(machine, "cgroup_memory", lambda: 2**30)
    (finding,) = machine.check_memory()
    assert (finding.level, finding.value) == ("note", "64 GB, 3 GB free; the cgroup allows 1 GB")


@pytest.mark.parametrize(
    ("version", "wanted", "fitting"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.5.1", ">=2.6", False),
        ("3.0.0rc1", ">=2.6", True),
        ("0.10.22", ">=0.10.14,<0.10.22", False),
        ("0.10.21", ">=0.10.14,<0.10.22", True),
        ("1.0", "", True),
    ],
)
def test_versions(version, wanted, fitting):
    assert machine.fits(version, wanted) is fitting


def test_a_python_that_is_too_new():
    (finding,) = machine.check_python_version(">=3.5,<3.9")
    assert (finding.level, finding.stops) == ("problem", True)
    assert finding.value.endswith("needed: >=3.5,<3.9")
    (finding,) = machine.check_python_version(">=3.11")
    assert (finding.level, finding.value) == ("ok", f"{platform.python_version()}, CPython")


def test_sizes():
    sizes = {512: "512 bytes", 2048: "2 kB", 1.5 * 2**20: "1.5 MB", 16 * 2**30: "16 GB", 3 * 2**40: "3 TB"}
    assert {size: machine.in_bytes(size) for size in sizes} == sizes
