"""Which libcupti is taken: the one that the process has, before all others."""

from __future__ import annotations

from pathlib import Path

from kat_otel.instrumentation.capture.libcupti import Candidate, find

MAPPED = """\
7f0000000000-7f0000001000 r-xp 00000000 08:01 1  /usr/lib/libc.so.6
7f0000002000-7f0000003000 r-xp 00000000 08:01 2  /opt/my torch/libcupti.so.12
"""
RUNTIME = "7f0000000000-7f0000001000 r-xp 00000000 08:01 1  /opt/torch/lib/libcudart.so.12\n"


def wheel(folder: Path, place: str, name: str) -> str:
    path = folder / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def test_the_one_that_is_named_is_the_only_one() -> None:
    assert find("/x/libcupti.so", maps=MAPPED) == [Candidate("/x/libcupti.so", "KAT_CUPTI_LIBRARY")]


def test_the_one_that_is_mapped_is_the_only_one() -> None:
    assert find(maps=MAPPED) == [Candidate("/opt/my torch/libcupti.so.12", "mapped")]


def test_wheels_come_before_toolkits_and_the_system(tmp_path: Path) -> None:
    thirteen = wheel(tmp_path / "site", "nvidia/cu13/lib", "libcupti.so.13")
    twelve = wheel(tmp_path / "site", "nvidia/cuda_cupti/lib", "libcupti.so.12")
    wheel(tmp_path / "site", "nvidia/cu13/lib", "libcupti_static.a")
    toolkit = wheel(tmp_path / "cuda", "extras/CUPTI/lib64", "libcupti.so")
    folders = [str(tmp_path / "site"), str(tmp_path / "nothing")]
    environment = {"CUDA_HOME": str(tmp_path / "cuda")}
    found = find(maps="", folders=folders, environment=environment)
    assert found[:3] == [
        Candidate(twelve, "wheel"),
        Candidate(thirteen, "wheel"),
        Candidate(toolkit, "toolkit"),
    ]
    assert {one.where for one in found[3:]} <= {"toolkit", "system"}


def test_the_major_version_of_the_runtime_in_the_process_comes_first(tmp_path: Path) -> None:
    wheel(tmp_path, "nvidia/cu13/lib", "libcupti.so.13")
    twelve = wheel(tmp_path, "nvidia/cuda_cupti/lib", "libcupti.so.12")
    assert find(maps=RUNTIME, folders=[str(tmp_path)], environment={})[0].path == twelve
    found = find(maps=RUNTIME.replace(".12", ".13"), folders=[str(tmp_path)], environment={})
    assert found[0].path.endswith("libcupti.so.13")
