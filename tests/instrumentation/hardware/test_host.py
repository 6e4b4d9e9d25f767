"""What the kernel says: a made-up /proc and /sys, and this machine's own."""

import os
import socket
import threading

import pytest

from kat_otel.instrumentation.hardware.host import HostReader, HostTeller, ProcessReader

PID = 4242


class Tree:
    """Files under a root, as the kernel would show them."""

    def __init__(self, root):
        self.root = root
        for name, text in {
            "proc/stat": "cpu  10 0 20 300 4 0 6 250 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
            "btime 1000\nprocs_running 7\n",
            "proc/vmstat": "pgpgin 5\npswpin 11\npswpout 12\n",
            "proc/pressure/cpu": "some avg10=1.00 avg60=0.00 avg300=0.00 total=1500000\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
            "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
            f"proc/{PID}/stat": stat(majors=33),
            f"proc/{PID}/status": "Name:\tx\nVmSwap:\t    2048 kB\n",
            f"proc/{PID}/cgroup": "0::/kubepods/pod1/box\n",
        }.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def thread(self, tid, ran_ns, waited_ns, cpu=0):
        self.write(f"proc/{PID}/task/{tid}/schedstat", f"{ran_ns} {waited_ns} 5\n")
        self.write(f"proc/{PID}/task/{tid}/stat", stat(cpu=cpu))

    def reader(self):
        return ProcessReader(PID, self.root)


def stat(*, majors=0, cpu=0):
    """``/proc/PID/stat`` with a name that means to confuse."""
    fields = ["S", *["0"] * 49]
    fields[12 - 3], fields[39 - 3] = str(majors), str(cpu)
    return f"{PID} (python) S 9 9 (x) {' '.join(fields)}\n"


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def said(measures):
    return {(m.name, *m.attributes.values()): m.value for m in measures}


def waited(reader):
    return said(reader.read())["kat.process.cpu.run_queue.time",]


def test_the_host_tells_steal_run_queue_swaps_and_pressure_since_its_start(tree):
    measures = HostReader(tree.root).read()
    ticks = os.sysconf("SC_CLK_TCK")
    assert said(measures) == {
        ("kat.host.cpu.steal.time",): 250 / ticks,
        ("kat.host.cpu.run_queue",): 7,
        ("kat.host.paging.operations", "in"): 11,
        ("kat.host.paging.operations", "out"): 12,
        ("kat.host.pressure.time", "cpu", "some"): 1.5,
        ("kat.host.pressure.time", "memory", "some"): 2.5,
        ("kat.host.pressure.time", "memory", "full"): 0.5,
    }
    assert {m.start_ns for m in measures if m.kind == "sum"} == {1_000 * 10**9}


def test_the_process_tells_major_faults_and_what_is_swapped_out(tree):
    found = said(tree.reader().read())
    assert found["process.paging.faults", "major"] == 33
    assert found["kat.process.memory.swapped",] == 2048 * 1024


def test_the_wait_for_a_cpu_is_that_of_the_thread_that_waited_most(tree):
    tree.thread(PID, 1_000, 5_000_000_000)
    tree.thread(4243, 1_000, 9_000_000_000)
    reader = tree.reader()
    assert waited(reader) == 0.0, "what was before us is not counted"
    tree.thread(PID, 2_000, 5_300_000_000)
    tree.thread(4243, 2_000, 9_100_000_000)
    assert waited(reader) == pytest.approx(0.3)
    tree.thread(4243, 3_000, 9_600_000_000)
    assert waited(reader) == pytest.approx(0.8)


def test_threads_come_and_go_and_the_total_never_falls(tree):
    tree.thread(PID, 0, 0)
    tree.thread(4243, 0, 8_000_000_000)
    reader = tree.reader()
    waited(reader)
    for name in ("schedstat", "stat"):
        (tree.root / f"proc/{PID}/task/4243/{name}").unlink()
    (tree.root / f"proc/{PID}/task/4243").rmdir()
    assert waited(reader) == 0.0
    tree.thread(5000, 0, 200_000_000)  # begun since: all of its wait is new
    assert waited(reader) == pytest.approx(0.2)


def test_of_too_many_threads_the_oldest_are_read_and_the_rest_counted(tree, monkeypatch):
    monkeypatch.setattr("kat_otel.instrumentation.hardware.host._MOST_THREADS", 2)
    for tid in (PID, 4243, 9, 10_000):
        tree.thread(tid, 0, 0)
    reader = tree.reader()
    waited(reader)
    assert set(reader._threads) == {"9", str(PID)}
    assert reader.counts["threads not read"] == 2


def test_the_clock_is_that_of_the_cpu_where_the_busiest_thread_ran(tree):
    tree.thread(PID, 0, 0, cpu=0)
    tree.thread(4243, 0, 0, cpu=1)
    reader = tree.reader()
    assert ("kat.process.cpu.frequency",) not in said(reader.read()), "nobody ran yet"
    tree.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "2900000\n")
    tree.thread(4243, 10, 0, cpu=1)
    assert said(reader.read())["kat.process.cpu.frequency",] == 2_900_000_000
    tree.write("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 1200.500\n\nprocessor\t: 1\n")
    tree.thread(PID, 10, 0, cpu=0)
    assert said(reader.read())["kat.process.cpu.frequency",] == 1_200_500_000


THROTTLED = ("kat.process.cgroup.throttled.time",)


def test_version_2_the_level_with_the_quota_is_the_one_that_throttles(tree):
    base = "sys/fs/cgroup"
    tree.write(f"{base}/cpu.stat", "usage_usec 1\n")
    tree.write(f"{base}/kubepods/pod1/cpu.stat", "nr_throttled 4\nthrottled_usec 750000\n")
    tree.write(f"{base}/kubepods/pod1/box/cpu.stat", "nr_throttled 0\nthrottled_usec 0\n")
    tree.write(f"{base}/kubepods/pod1/box/cpu.pressure", "some avg10=0 total=4000000\n")
    tree.write(f"{base}/kubepods/pod1/box/io.pressure", "full avg10=0 total=3000000\n")
    found = said(tree.reader().read())
    assert found[THROTTLED] == 0.75
    assert found["kat.process.cgroup.pressure.time", "cpu", "some"] == 4.0
    assert found["kat.process.cgroup.pressure.time", "io", "full"] == 3.0


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("seen", ["/docker/abc/", "/"], ids=["host's paths", "container's"])
def test_version_1_is_read_where_it_is_mounted(tree, folder, seen):
    tree.write(f"proc/{PID}/cgroup", "3:cpuset:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    tree.write(f"sys/fs/cgroup/{folder}{seen}cpu.stat", "nr_periods 9\nthrottled_time 1250000000\n")
    assert said(tree.reader().read())[THROTTLED] == 1.25


def test_a_path_that_leads_out_of_the_tree_is_not_followed(tree):
    tree.write(f"proc/{PID}/cgroup", "0::/../../..\n")
    tree.write("cpu.stat", "throttled_usec 1\n")
    tree.write("sys/fs/cgroup/cpu.stat", "throttled_usec 7000000\n")
    assert said(tree.reader().read())[THROTTLED] == 7.0


def test_a_kernel_that_says_nothing_and_a_process_that_ended_give_nothing(tmp_path):
    assert HostReader(tmp_path).read() == []
    reader = ProcessReader(PID, tmp_path)
    assert reader.read() == []
    assert reader.counts["no process"] == 1


@pytest.mark.parametrize("rubbish", ["", "x", "\0\xff", "cpu\n", "some total=\n", "a:b\n"])
def test_rubbish_is_not_raised_about(tree, rubbish):
    tree.thread(PID, 0, 0)
    for file in [path for path in tree.root.rglob("*") if path.is_file()]:
        file.write_text(rubbish)
        HostReader(tree.root).read()
        tree.reader().read()


def test_this_machine_is_read_too():
    reader = ProcessReader(os.getpid())
    reader.read()
    own, host = said(reader.read()), said(HostReader().read())
    assert own["process.paging.faults", "major"] >= 0
    assert own["kat.process.cpu.run_queue.time",] >= 0
    assert host["kat.host.cpu.run_queue",] >= 1, "this test runs"
    assert host["kat.host.cpu.steal.time",] >= 0


def test_one_worker_of_an_instance_tells_of_the_host_and_another_takes_over():
    first, second, other = HostTeller("a"), HostTeller("a"), HostTeller("b")
    assert first.chosen()
    assert first.chosen()
    assert not second.chosen()
    assert other.chosen(), "another instance's worker tells its own story"
    first.close()
    assert second.chosen()
    assert not first.chosen()
    for teller in (first, second, other):
        teller.close()


def test_of_many_at_once_one_is_chosen():
    tellers = [HostTeller("crowd") for _ in range(8)]
    chosen: list[bool] = []
    threads = [threading.Thread(target=lambda t=t: chosen.append(t.chosen())) for t in tellers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chosen) == [False] * 7 + [True]
    for teller in tellers:
        teller.close()


def test_where_such_sockets_are_forbidden_nobody_tells(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    assert not HostTeller("forbidden").chosen()
