"""vLLM's workers: steps counted alike, ranks, kinds of steps, requests, KV transfers."""

from __future__ import annotations

import textwrap

import pytest

from kat_otel.instrumentation.capture.records import StepFlag
from tests.instrumentation.engines.programs import Done, Programs

D, P, DUMMY = int(StepFlag.DECODE), int(StepFlag.PREFILL), int(StepFlag.DUMMY)

HEAD = """
from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure
from kat_otel.instrumentation.session import session
from types import SimpleNamespace
import os
ensure()
from vllm.v1.worker.gpu_worker import Worker, config
from vllm.v1.core.sched.output import SchedulerOutput, CachedRequestData, NewRequestData

def output(new=(), running=(), outputs=None, done=()):
    cached = CachedRequestData(list(running), list(outputs or [1] * len(running)))
    tokens = {r.req_id: 100 for r in new} | dict.fromkeys(running, 1)
    return SchedulerOutput(list(new), cached, tokens, sum(tokens.values()), {}, set(done))

def step(worker, out):
    result = worker.execute_model(out)
    return worker.sample_tokens(None) if result is None else result

def identified():
    assert session()._identifier.join(30)
"""


def started(programs: Programs, program: str, **environment: str) -> Done:
    return programs.run(HEAD + textwrap.dedent(program), **environment)


def test_a_step_lasts_from_execute_model_to_the_end_of_sampling(programs: Programs) -> None:
    done = started(
        programs,
        """
        worker = Worker(config(), 0, 0)
        worker.init_device()
        import doubles
        worker.execute_model(output([NewRequestData("a")]))
        doubles.write("between")
        worker.sample_tokens(None)
        step(worker, output(running=["a"]))
        """,
    )
    kinds = [(e["kind"], e.get("edge")) for e in done.events if e["kind"] in ("mark", "between")]
    assert kinds == [("mark", 0), ("between", None), ("mark", 1), ("mark", 0), ("mark", 1)]
    assert done.begun() == [(0, P), (1, D)]


def test_capture_starts_before_the_device_and_the_worker_is_named_after_it(
    programs: Programs,
) -> None:
    done = started(
        programs,
        """
        import doubles
        worker = Worker(config(), 0, 0)
        doubles.write("before")
        worker.init_device()
        identified()
        """,
    )
    assert [e["kind"] for e in done.events] == ["before", "start", "helper", "say", "stop", "close"]


def test_kinds_of_steps_are_told_by_what_is_scheduled(programs: Programs) -> None:
    done = started(
        programs,
        """
        worker = Worker(config(), 0, 0)
        worker.init_device()
        step(worker, output([NewRequestData("a")]))
        step(worker, output(running=["a"], outputs=[0]))
        step(worker, output(running=["a"], outputs=[1]))
        step(worker, output([NewRequestData("b")], running=["a"]))
        step(worker, output(running=["a", "b"], outputs=[2, 0]))
        worker.execute_dummy_batch()
        """,
    )
    assert [flags for _, flags in done.begun()] == [P, P, D, P | D, P | D, DUMMY]


RANK = """
import json
who = json.loads(os.environ["WHO"])
worker = Worker(config(**who["config"]), who["local"], who["local"])
worker.init_device()
for kind in who["turns"]:
    if kind == "batch":
        step(worker, output(running=["a"]))
    elif kind == "empty":      # a scheduler output without tokens, then a dummy batch beside
        worker.execute_model(SchedulerOutput())
        worker.execute_dummy_batch()
    else:
        worker.execute_dummy_batch()
identified()
print(worker.forwards)
"""


def ranks(programs: Programs, *who: str) -> Done:
    running = [programs.start(HEAD + RANK, WHO=one) for one in who]
    done = programs.finish(running)
    assert done.code == 0, done.errors
    return done


def test_ranks_with_experts_count_alike_whether_they_have_a_batch_or_not(
    programs: Programs,
) -> None:
    shape = '"config": {"tp": 1, "dp": 2, "dp_rank": %d, "experts": true}, "local": 0'
    done = ranks(
        programs,
        "{" + shape % 0 + ', "turns": ["batch", "batch", "empty", "batch", "dummy"]}',
        "{" + shape % 1 + ', "turns": ["dummy", "batch", "batch", "empty", "batch"]}',
    )
    assert done.output.split() == ["5", "5"]
    first, second = done.pids()
    assert [s for s, _ in done.begun(first)] == [s for s, _ in done.begun(second)] == [*range(5)]
    assert {flags for _, flags in done.begun()} == {D, DUMMY}


def test_all_ranks_of_a_group_share_nonce_and_instance_and_know_their_place(
    programs: Programs,
) -> None:
    done = ranks(
        programs,
        *(
            f'{{"config": {{"tp": 2, "pp": 2}}, "local": {local}, "turns": ["batch"]}}'
            for local in range(4)
        ),
    )
    workers = sorted(done.said("worker"), key=lambda w: w["resource"]["rank"])
    places = [[w["resource"][key] for key in ("rank", "tp", "pp", "dp", "ep")] for w in workers]
    assert places == [[0, 0, 0, 0, -1], [1, 1, 0, 0, -1], [2, 0, 1, 0, -1], [3, 1, 1, 0, -1]]
    assert {w["group_size"] for w in workers} == {w["resource"]["world_size"] for w in workers}
    assert {w["group_size"] for w in workers} == {4}
    assert len({w["nonce"] for w in workers}) == 1
    assert {w["resource"]["instance"] for w in workers} == {f"vllm-{workers[0]['nonce']:016x}"}
    assert workers[0]["resource"]["attributes"]["gen_ai.request.model"] == "meta-llama/Llama-3.1-8B"
    assert workers[0]["resource"]["attributes"]["kat.engine"] == "vllm"
    assert workers[0]["resource"]["attributes"]["kat.engine.version"] == "0.33.0"


def test_experts_ranks_span_data_parallelism(programs: Programs) -> None:
    shape = (
        '{"config": {"tp": 2, "dp": 2, "dp_rank": %d, "experts": true}, "local": %d, "turns": []}'
    )
    done = ranks(programs, *(shape % (dp, tp) for dp in range(2) for tp in range(2)))
    places = sorted(
        tuple(w["resource"][key] for key in ("rank", "tp", "dp", "ep")) for w in done.said("worker")
    )
    assert places == [(0, 0, 0, 0), (1, 1, 0, 1), (2, 0, 1, 2), (3, 1, 1, 3)]


def test_replicas_that_share_an_explicit_instance_id_are_told_apart(programs: Programs) -> None:
    program = HEAD + "Worker(config(dp_index=%d), 0, 0).init_device(); identified()"
    done = programs.finish(
        [
            programs.start(program % index, KAT_INSTANCE_ID="llama", FAKE_STORE=str(folder))
            for index in (0, 1)
            if not (folder := programs.folder / f"store{index}").mkdir()
        ]
    )
    assert sorted(w["resource"]["instance"] for w in done.said("worker")) == ["llama", "llama/dp1"]
    assert len({w["nonce"] for w in done.said("worker")}) == 2


def test_steps_link_to_the_requests_they_work_for(programs: Programs) -> None:
    done = started(
        programs,
        """
        import pickle
        worker = Worker(config(), 0, 0)
        worker.init_device()
        def new(name, parent):
            headers = {"traceparent": parent} if parent else None
            request = SimpleNamespace(request_id=name, trace_headers=headers)
            # the engine core's process pickles it for its workers
            return pickle.loads(pickle.dumps(NewRequestData.from_request(request, ())))
        a = new("a", "00-" + "a" * 32 + "-" + "1" * 16 + "-01")
        step(worker, output([a, new("b", None), new("c", "00-nonsense")]))
        step(worker, output(running=["a", "b", "c"]))
        step(worker, output(running=["b", "c"], done=["a"]))
        """,
    )
    spans = [["a" * 32, "1" * 16]]
    assert [(said["step"], said["spans"]) for said in done.said("links")] == [
        (0, spans),
        (1, spans),
    ]


def test_one_rank_of_a_replica_says_the_links(programs: Programs) -> None:
    program = (
        HEAD
        + """
worker = Worker(config(tp=2), %d, %d)
worker.init_device()
new = NewRequestData("a")
new.kat_otel_trace = ("a" * 32, "1" * 16)
step(worker, output([new]))
"""
    )
    done = programs.finish([programs.start(program % (rank, rank)) for rank in range(2)])
    assert done.code == 0, done.errors
    assert len(done.said("links")) == 1


def test_a_kv_transfer_is_a_range_that_names_the_other_instance(programs: Programs) -> None:
    done = started(
        programs,
        """
        import time
        from vllm.distributed.kv_transfer import kv_transfer_state
        from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1
        transfer = SimpleNamespace(engine_id="decode-1", kv_role="kv_consumer")
        worker = Worker(config(transfer=transfer), 0, 0)
        worker.init_device()
        identified()
        connector = kv_transfer_state._KV_CONNECTOR_AGENT = KVConnectorBase_V1()
        before = connector.start_load_kv
        remote = SimpleNamespace(remote=SimpleNamespace(engine_id="prefill-7"))
        def loading():              # what the model runner does within a step
            connector.start_load_kv(None)
            time.sleep(0.002)
            connector.received = finished
            connector.get_transfer_results(set())
        worker.run = loading
        connector._connector_metadata = SimpleNamespace(reqs_to_recv={"r1": remote})
        finished = set()
        step(worker, output(running=["a"]))
        connector._connector_metadata = None
        finished = {"r1"}
        step(worker, output(running=["a"]))
        KatInstrumentor().uninstrument()
        assert connector.start_load_kv == before
        """,
    )
    (worker,) = done.said("worker")
    assert worker["resource"]["attributes"]["kat.kv.engine.id"] == "decode-1"
    assert worker["resource"]["attributes"]["kat.kv.role"] == "kv_consumer"
    first, second = done.said("ranges")
    assert [r[0] for r in first["ranges"]] == ["kv start_load_kv"]
    assert [r[0] for r in second["ranges"]] == ["kv start_load_kv", "kv transfer"]
    _, begin, end, _, attributes = second["ranges"][1]
    assert attributes == {"kat.kv.request.id": "r1", "kat.kv.remote.engine.id": "prefill-7"}
    assert end - begin > 4_000_000
    assert (first["step"], second["step"]) == (0, 1)


def test_micro_batches_are_marked_on_their_own_threads(programs: Programs) -> None:
    done = started(
        programs,
        """
        import threading
        from vllm.v1.worker.ubatching import UBatchContext
        worker = Worker(config(), 0, 0)
        worker.init_device()
        def half(number):
            with UBatchContext(number):
                pass
        def halves():
            threads = [threading.Thread(target=half, args=(n,)) for n in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        worker.run = halves
        step(worker, output(running=["a"]))
        """,
    )
    marks = sorted((e["micro"], e["edge"]) for e in done.of("mark"))
    assert marks == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert {e["step"] for e in done.of("mark")} == {0}
    assert len({e["thread"] for e in done.of("mark")}) == 3


def test_rays_compiled_graphs_go_past_the_worker_and_are_steps_too(programs: Programs) -> None:
    done = started(
        programs,
        """
        from vllm.v1.executor.ray_utils import RayWorkerWrapper
        worker = Worker(config(), 0, 0)
        worker.init_device()
        wrapper = RayWorkerWrapper(worker)
        wrapper.execute_model_ray((output([NewRequestData("a")]), None))
        wrapper.execute_model_ray((SchedulerOutput(), None))
        wrapper.execute_model_ray((output(running=["a"]), None, "tensors"))
        wrapper.execute_model_ray(execute_model_input=output(running=["a"]))     # older: no tuple
        """,
    )
    assert done.begun() == [(0, P), (1, D), (2, D)]
    assert [e["edge"] for e in done.of("mark")] == [0, 1] * 3


def test_an_engine_that_fails_fails_as_before_and_its_step_ends(programs: Programs) -> None:
    done = started(
        programs,
        """
        worker = Worker(config(), 0, 0)
        worker.init_device()
        try:
            step(worker, output(running=["a"]))
        except RuntimeError as error:
            print(error)
        """,
        FAKE_MODEL_FAILS="1",
    )
    assert done.output == "CUDA error: device-side assert triggered\n"
    assert [e["edge"] for e in done.of("mark")] == [0, 1]


@pytest.mark.parametrize("started_with", ["plugin", "ensure twice", "the instrumentor"])
def test_uninstrument_gives_back_the_very_functions(programs: Programs, started_with: str) -> None:
    ways = {
        "plugin": "os.environ['KAT_OTEL'] = 'on'; plugin(); plugin()",
        "ensure twice": "ensure(); ensure()",
        "the instrumentor": "KatInstrumentor().instrument()",
    }
    programs.run(
        f"""
        import os
        from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure, plugin
        from vllm.v1.worker.gpu_worker import Worker
        from vllm.v1.core.sched.output import NewRequestData
        before = dict(vars(Worker)), dict(vars(NewRequestData))
        {ways[started_with]}
        assert vars(Worker)["execute_model"] is not before[0]["execute_model"]
        assert "vllm.v1.worker.gpu_worker.Worker.execute_model" in KatInstrumentor().hooked
        KatInstrumentor().uninstrument()
        assert all(vars(Worker)[name] is thing for name, thing in before[0].items())
        assert all(vars(NewRequestData)[name] is thing for name, thing in before[1].items())
        assert not KatInstrumentor().hooked
        KatInstrumentor().instrument()      # and on again
        assert vars(Worker)["execute_model"] is not before[0]["execute_model"]
        """
    )
