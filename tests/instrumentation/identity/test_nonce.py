"""One nonce for all ranks of one start, another one for every other."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from kat_otel.instrumentation.identity.nonce import KEY, Shared, shared_nonce


class TcpStore:
    """A store of one start: what torch's has, with its one atomic operation."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        assert expected == ""
        with self._lock:
            return self._values.setdefault(key, desired.encode())


def nonce(
    *,
    world: int = 8,
    explicit: str = "",
    store: TcpStore | None = None,
    environment: Mapping[str, str] | None = None,
) -> Shared:
    return shared_nonce(
        world_size=world, explicit=explicit, store=store, environment=environment or {}
    )


def test_all_ranks_of_a_store_agree_whoever_comes_first() -> None:
    store = TcpStore()
    found: list[Shared] = []
    threads = [threading.Thread(target=lambda: found.append(nonce(store=store))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = nonce(store=store)
    assert len({late, *found}) == 1
    assert late.source == "store"


def test_replicas_and_restarts_have_stores_of_their_own_and_differ() -> None:
    assert len({nonce(store=TcpStore()).nonce for _ in range(100)}) == 100
    assert len({nonce(store=TcpStore(), explicit="llama").nonce for _ in range(100)}) == 100


def test_an_explicit_instance_is_mixed_in() -> None:
    store = TcpStore()
    assert nonce(store=store, explicit="a") == nonce(store=store, explicit="a")
    assert nonce(store=store, explicit="a") != nonce(store=store, explicit="b")


LAUNCHERS = {
    "pmix": ({"PMIX_NAMESPACE": "prterun-n1-77@1"}, {"PMIX_NAMESPACE": "prterun-n1-78@1"}),
    "mpi": ({"OMPI_MCA_ess_base_jobid": "41"}, {"OMPI_MCA_ess_base_jobid": "42"}),
    "slurm step": (
        {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0"},
        {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "1"},
    ),
    "slurm requeue": (
        {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0"},
        {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1"},
    ),
    "torchrun": (
        {"TORCHELASTIC_RUN_ID": "j", "TORCHELASTIC_RESTART_COUNT": "0"},
        {"TORCHELASTIC_RUN_ID": "j", "TORCHELASTIC_RESTART_COUNT": "1"},
    ),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_names_each_start(name: str) -> None:
    first, second = LAUNCHERS[name]
    assert nonce(environment=first) == nonce(environment=first)
    assert nonce(environment=first).source == "launcher"
    assert nonce(environment=first) != nonce(environment=second)


def test_what_torchrun_says_without_an_id_tells_no_starts_apart() -> None:
    default = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    assert nonce(environment=default).source == "none"


def test_a_process_alone_has_a_nonce_of_its_own() -> None:
    first, second = nonce(world=1), nonce(world=1)
    assert (first.source, second.source) == ("alone", "alone")
    assert first != second


def test_ranks_that_share_nothing_say_so() -> None:
    assert nonce(explicit="a") == nonce(explicit="a")
    assert nonce(explicit="a").source == "explicit"
    assert nonce().source == "none"


def test_a_foreign_value_under_our_key_is_refused() -> None:
    store = TcpStore()
    store.compare_set(KEY, "", "x" * 1_000)
    with pytest.raises(ValueError, match="under kat_otel/nonce"):
        nonce(store=store)
