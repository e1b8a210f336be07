"""vLLM itself, recorded: offline, over HTTP, over two ranks, as two replicas; every token as the client got it."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from recorded import render, said, trace_of
from tracereel.engine.model_store import FILE_SHA256
from tracereel.trace.check.invariants import check
from tracereel.trace.export.merge import merge
from tracereel.trace.state.columns import Trace

HERE = Path(__file__).parent
VLLM_PYTHON = Path(os.environ["TRACEREEL_VLLM_PYTHON"])
SCHEDULER = "tracereel.engine.adapters.vllm.scheduler"


def environment(**more: str) -> dict[str, str]:
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    # Two ranks or replicas share what cores there are, on one NUMA node; threads that wait for each other's take them.
    own |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    # vLLM 0.33 gives each replica a NUMA node of its own, whether there is one or not, unless this is set at all.
    own |= {"VLLM_CPU_SIM_MULTI_NUMA": "0"}
    own |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": "127.0.0.1"}
    return os.environ | own | more


def run_offline(model: Path, answers: Path, options: dict, **more: str) -> dict[str, tuple[list[int], str]]:
    command = [str(VLLM_PYTHON), str(HERE / "vllm_offline.py"), str(model), str(answers), json.dumps(options)]
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {name: (tokens, text) for name, (tokens, text) in json.loads(answers.read_text()).items()}


def test_offline_by_the_plugin(model_folder, tmp_path):
    answers = run_offline(model_folder, tmp_path / "answers.json", {}, TRACEREEL_VLLM=str(tmp_path / "run"))
    (path,) = (tmp_path / "run").iterdir()
    trace = trace_of(path)
    assert said(trace) == answers
    # All that a scheduler can do to a request was done here.
    assert trace.residencies.preempted.any()
    assert trace.residencies.cached.any()
    assert any(arrival.prompt_tokens > (trace.header.token_budget or 0) for arrival in trace.arrivals)
    assert {reason for _, reason, _ in trace.endings.values()} == {"length"}
    assert (trace.steps.kv_used > 0).all()
    assert trace.header.model.digest == FILE_SHA256
    assert trace.header.engine.name == "vLLM"
    render(path, tmp_path)


def test_steps_that_are_scheduled_ahead_are_put_in_order(model_folder, tmp_path):
    settings = {"tracereel": {"path": str(tmp_path / "ahead.jsonl")}}
    options = {"scheduler_cls": SCHEDULER, "additional_config": settings}
    answers = run_offline(model_folder, tmp_path / "answers.json", options, TWO_IN_FLIGHT="1")
    trace = trace_of(tmp_path / "ahead.jsonl")
    assert said(trace) == answers
    records = [json.loads(line) for line in (tmp_path / "ahead.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["event"] == "step"]
    # The schedule of a step was made while the one before it ran: its latency is more than its time.
    overlapped = [step for step in steps if step["latency_ns"] > 1.5 * (step["end_ns"] - step["start_ns"])]
    assert len(overlapped) > len(steps) // 3
    render(tmp_path / "ahead.jsonl", tmp_path)


def test_each_run_of_one_process_is_a_recording(model_folder, tmp_path):
    run = {"suite": "race-engines", "case": "vllm", "repeat": 0, "repeats": 2}
    settings = {"tracereel": {"path": str(tmp_path / "race.jsonl"), "requests_per_run": 12, "run": run}}
    options = {"scheduler_cls": SCHEDULER, "additional_config": settings}
    answers = run_offline(model_folder, tmp_path / "answers.json", options, RUNS="2")
    assert sorted(path.name for path in tmp_path.glob("race*")) == ["race-1.jsonl", "race-2.jsonl"]
    traces = [trace_of(tmp_path / f"race-{number}.jsonl") for number in (1, 2)]
    assert [trace.header.run.repeat for trace in traces] == [0, 1]
    assert sorted(said(traces[1]).values()) == sorted(answers.values())


def test_tensor_parallel_is_one_trace_of_two_ranks(model_folder, tmp_path):
    # SmolLM2 has nine heads, which do not part in two: a model of the same kind that does, with random weights.
    settings = {"tracereel": {"path": str(tmp_path / "tp.jsonl")}}
    options = {
        "scheduler_cls": SCHEDULER,
        "additional_config": settings,
        "tensor_parallel_size": 2,
        "load_format": "dummy",
        "hf_overrides": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64},
    }
    answers = run_offline(model_folder, tmp_path / "answers.json", options)
    trace = trace_of(tmp_path / "tp.jsonl")
    assert {name: tokens for name, (tokens, _) in said(trace).items()} == {n: t for n, (t, _) in answers.items()}
    assert trace.header.parallel is not None
    assert trace.header.parallel.tensor == 2
    assert trace.header.model.weights == "random"
    render(tmp_path / "tp.jsonl", tmp_path)


# Served.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(model: Path, log: Path, *options: str) -> Iterator[int]:
    """`vllm serve` on loopback, ended by SIGTERM."""
    port = free_port()
    command = [str(VLLM_PYTHON), "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "m", "--enforce-eager", "--max-model-len", "512"]
    command += ["--max-num-seqs", "4", "--scheduler-cls", SCHEDULER, *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment(), stdout=out, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail("the server did not come up: " + log.read_text()[-3000:])
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Client(threading.Thread):
    """One streamed completion; `leave_after` chunks the connection is cut."""

    def __init__(self, port: int, name: str, leave_after: int | None = None, **options: object):
        super().__init__()
        self.port, self.id, self.leave_after = port, name, leave_after
        self.body = {
            "model": "m",
            "stream": True,
            "temperature": 0,
            "return_token_ids": True,
            "max_tokens": 24,
            **options,
        }
        self.tokens: list[int] = []
        self.text, self.reason = "", None

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "application/json", "X-Request-Id": self.id}
        connection.request("POST", "/v1/completions", json.dumps(self.body), headers)
        line_itself = connection.sock
        answer = connection.getresponse()
        chunks = 0
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            (choice,) = json.loads(line[6:])["choices"] or ({},)
            self.tokens += choice.get("token_ids") or []
            self.text += choice.get("text") or ""
            self.reason = choice.get("finish_reason") or self.reason
            chunks += 1
            if chunks == self.leave_after:
                break
        # The line itself is cut: closing the answer would first read the rest of it.
        line_itself.shutdown(socket.SHUT_RDWR)
        connection.close()


def serve_clients(clients: list[Client]) -> None:
    for client in clients:
        client.start()
    for client in clients:
        client.join(200)
        assert not client.is_alive()
    time.sleep(2)  # a disconnect is noticed, and what was written is flushed


def own_name(id: str, clients: list[Client]) -> Client:
    (found,) = (client for client in clients if f"-{client.id}-" in f"{id}-")
    return found


def compare(traces: list[Trace], clients: list[Client]) -> None:
    """Every client's tokens and text are what a trace says, as far as the client listened."""
    answered = 0
    for trace in traces:
        answers = said(trace)
        for number, arrival in enumerate(trace.arrivals):
            client, (tokens, text) = own_name(arrival.id, clients), answers[arrival.id]
            reason = trace.endings[number][1]
            answered += 1
            if client.leave_after:
                assert reason == "abort"
                assert tokens[: len(client.tokens)] == client.tokens
            elif client.body.get("stop"):
                # The engine goes on until it hears of the stop string, and the client gets what stands before it.
                assert reason == client.reason == "stop"
                assert tokens[: len(client.tokens)] == client.tokens
                assert text.split(str(client.body["stop"]))[0] == client.text
            else:
                assert (tokens, reason) == (client.tokens, client.reason)
                assert text == client.text
    assert answered == len(clients)


def test_served_with_a_disconnect_and_a_stop_string(model_folder, tmp_path):
    config = json.dumps({"tracereel": {"path": str(tmp_path / "served.jsonl.zst")}})
    with server(model_folder, tmp_path / "log", "--shutdown-timeout", "20", "--additional-config", config) as port:
        clients = [Client(port, f"plain{i}", prompt=f"Count from {i} to a hundred:") for i in range(6)]
        clients.append(
            Client(port, "gone", leave_after=3, prompt="Tell a very long story.", max_tokens=400, ignore_eos=True)
        )
        serve_clients(clients)
        # A stop string that the model is known to say, over more than one token.
        again = clients[0]
        stops = Client(port, "stops", prompt=again.body["prompt"], stop=again.text[20:26])
        serve_clients([stops])
        clients.append(stops)
    path = tmp_path / "served.jsonl.zst"
    trace = trace_of(path)
    compare([trace], clients)
    assert all(0 <= arrival.arrival_ns <= arrival.submitted_ns for arrival in trace.arrivals)
    assert trace.header.workload.digest is None
    render(path, tmp_path)


def test_two_replicas_are_two_traces_that_merge(model_folder, tmp_path):
    config = json.dumps({"tracereel": {"path": str(tmp_path / "dp")}})
    options = ("--data-parallel-size", "2", "--shutdown-timeout", "20", "--additional-config", config)
    with server(model_folder, tmp_path / "log", *options) as port:
        clients = [Client(port, f"plain{i}", prompt=f"Count from {i} to a hundred:") for i in range(8)]
        serve_clients(clients)
    files = sorted((tmp_path / "dp").iterdir(), key=lambda path: path.name.split("replica")[-1])
    traces = [trace_of(path) for path in files]
    assert [trace.header.parallel.replica for trace in traces if trace.header.parallel] == [0, 1]
    assert all(trace.arrivals for trace in traces), "both replicas were given something"
    compare(traces, clients)
    merged = tmp_path / "merged.jsonl.zst"
    merge(files, merged)
    assert [replica.replica for replica in trace_of(merged).header.replicas] == [0, 1]
    render(merged, tmp_path)


def test_what_was_flushed_outlives_a_killed_server(model_folder, tmp_path):
    config = json.dumps({"tracereel": {"path": str(tmp_path / "killed.jsonl.zst")}})
    with server(model_folder, tmp_path / "log", "--additional-config", config) as port:
        clients = [Client(port, f"plain{i}", prompt=f"Count from {i} to a hundred:") for i in range(2)]
        serve_clients(clients)
    # Without --shutdown-timeout vLLM may kill its engine core before it can write the end.
    (path,) = tmp_path.glob("killed*")
    report = check(path)
    assert not report.violations
    compare([Trace.read(path)], clients)
    render(path, tmp_path)
