"""llama.cpp's server followed from outside: a stand-in that makes a pass at each look, in the real answers' shapes."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tracereel.cli.main import main
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.llama_cpp import ledger as ledger_module
from tracereel.engine.adapters.llama_cpp import server as server_module
from tracereel.engine.adapters.llama_cpp.follow import MOST_PROMPTS
from tracereel.engine.adapters.llama_cpp.ledger import ROUND_NS, Ledger, Seen, Sent
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import Arrival, Finish, Step
from tracereel.trace.state.columns import Trace

ANSWERS = json.loads((Path(__file__).parent / "data" / "llama-server.json").read_text())


def seen(slot, task, processed, decoded, *, seed=0, cached=0, remain=-1):
    return Seen(slot, task, seed, cached, processed, decoded, remain)


def sent(id="a", *, seed=7, prompt_tokens=5, max_tokens=3, at_ns=0):
    return Sent(id, f"What is {id}?", prompt_tokens, max_tokens, seed, at_ns, at_ns)


def answer(request, tokens, stop_type="limit"):
    """All of a request's answer has come."""
    request.pieces = {i + 1: (f" {token}", token) for i, token in enumerate(tokens)}
    request.received, request.stop_type, request.ended = len(tokens), stop_type, True


def steps_of(records):
    return [record for record in records if isinstance(record, Step)]


def test_looks_that_keep_up_give_a_step_for_each_pass():
    ledger, mine = Ledger(), sent()
    ledger.send(mine)
    ledger.look([], 100)
    ledger.look([seen(2, 40, 4, 0, seed=7)], 200)
    ledger.look([seen(2, 40, 5, 1, seed=7)], 300)
    ledger.look([seen(2, 40, 5, 2, seed=7)], 400)
    ledger.look([], 500)
    assert ledger.busy
    answer(mine, [11, 12, 13])
    arrival, *steps = ledger.records()
    assert isinstance(arrival, Arrival)
    assert (arrival.id, arrival.prompt, arrival.prompt_tokens, arrival.max_tokens) == ("a", "What is a?", 5, 3)
    assert [(step.start_ns, step.end_ns) for step in steps] == [(100, 200), (200, 300), (300, 400), (400, 500)]
    assert [(step.phases, step.positions, step.computed, step.sampled) for step in steps] == [
        ("P", [0], [4], [0]),
        ("P", [4], [1], [1]),
        ("D", [5], [1], [1]),
        ("D", [6], [1], [1]),
    ]
    assert [step.slots for step in steps] == [[2]] * 4
    assert [step.tokens for step in steps] == [[], [11], [12], [13]]
    assert steps[1].texts == [" 11"]
    assert [ending.reason for step in steps for ending in step.finished] == ["length"]
    assert not ledger.busy


def test_looks_do_not_wait_for_an_answer_without_end(monkeypatch):
    monkeypatch.setattr(ledger_module, "MOST_KEPT", 20)
    ledger, mine = Ledger(), sent()
    ledger.send(mine)
    for n in range(40):  # those whose answers come do not add up
        ledger.look([seen(1, 30, 5, 1 + n)], 100 + n)
        assert list(ledger.records())
    for n in range(6):
        ledger.look([seen(1, 30, 5, 50 + n), seen(2, 40, 5, 1 + n, seed=7)], 200 + n)
        assert not list(ledger.records())
    with pytest.raises(AdapterError, match="7 looks show slots at work whose answers have not come"):
        ledger.look([seen(1, 30, 5, 60), seen(2, 40, 5, 9, seed=7)], 300)


def test_a_look_in_the_middle_of_a_pass_does_not_part_it():
    ledger, mine = Ledger(), sent()
    ledger.send(mine)
    for at_ns, processed, decoded in ((100, 0, 0), (200, 0, 0), (300, 5, 1), (400, 5, 1), (500, 5, 2)):
        ledger.look([seen(0, 1, processed, decoded, seed=7)] if at_ns > 100 else [], at_ns)
    ledger.look([], 600)
    answer(mine, [1, 2, 3])
    ledger.look([], 700)
    ledger.look([], 800)
    steps = steps_of(ledger.records())
    assert [(step.start_ns, step.end_ns) for step in steps] == [(100, 300), (300, 500), (500, 600)]


def test_several_passes_between_two_looks_stand_at_its_end():
    ledger, mine = Ledger(), sent(max_tokens=9)
    ledger.send(mine)
    ledger.look([], 0)
    ledger.look([seen(0, 1, 5, 4, seed=7)], 9_000_000)
    answer(mine, [1, 2, 3, 4, 5], "eos")
    ledger.look([], 20_000_000)
    first, rest, last = steps_of(ledger.records())
    assert (first.phases, first.sampled, first.end_ns) == ("P", [1], 9_000_000 - ROUND_NS)
    assert (rest.phases, rest.sampled, rest.computed, rest.tokens) == ("D", [3], [3], [2, 3, 4])
    assert (rest.start_ns, rest.end_ns) == (9_000_000 - ROUND_NS, 9_000_000)
    assert (last.sampled, last.finished[0].reason) == ([1], "stop")


def test_a_slot_that_is_handed_over_between_two_looks():
    ledger, old, new = Ledger(), sent("old", seed=1, max_tokens=2), sent("new", seed=2, max_tokens=2)
    ledger.send(old)
    ledger.send(new)
    ledger.look([], 0)
    ledger.look([seen(0, 1, 5, 1, seed=1)], 10**6)
    ledger.look([seen(0, 2, 3, 0, seed=2)], 2 * 10**6)
    answer(old, [1, 2])
    ledger.look([], 3 * 10**6)
    answer(new, [3, 4])
    steps = steps_of(ledger.records())
    assert [(step.requests, step.phases) for step in steps] == [
        ([0], "P"),
        ([0], "D"),
        ([1], "P"),
        ([1], "P"),
        ([1], "D"),
    ]
    assert [step.waiting for step in steps] == [1, 1, 0, 0, 0]
    assert steps[1].finished[0].request == 0
    assert steps[2].admitted[0].request == 1
    assert steps[2].start_ns == steps[1].end_ns


def test_of_anothers_request_only_what_the_slots_show():
    ledger = Ledger()
    ledger.look([], 50)
    ledger.look([seen(1, 9, 6, 0, cached=2, remain=30)], 100)
    assert not list(ledger.records())  # how long its prompt is shows with its first token
    ledger.look([seen(1, 9, 8, 1, cached=2, remain=29)], 200)
    ledger.look([], 300)
    arrival, first, second, finish = ledger.records()
    assert (arrival.id, arrival.arrival_ns, arrival.prompt, arrival.prompt_tokens) == ("task 9", 50, None, 10)
    assert arrival.max_tokens == 30
    assert first.admitted[0].cached == 2
    assert (second.positions, second.sampled, second.tokens, second.texts) == ([8], [1], None, None)
    assert isinstance(finish, Finish)
    assert finish.reason == "ended"


def test_what_no_look_saw_and_what_broke_off_is_said():
    ledger, quick, broken = Ledger(), sent("quick", seed=1), sent("broken", seed=2)
    ledger.send(quick)
    ledger.send(broken)
    ledger.look([], 10)
    answer(quick, [1])
    broken.ended = True
    ledger.look([], 20)
    endings = [record.reason for record in ledger.records(all_of_it=True) if isinstance(record, Finish)]
    assert endings == ["unseen", "error"]


class StandIn:
    """A server of two slots; at each look it first makes a pass: a prompt of up to 4 tokens, or a token a slot."""

    def __init__(self):
        self.lock = threading.Condition()
        self.slots, self.queue, self.tasks, self.passes = [None, None], [], 0, 0

    def submit(self, body):
        with self.lock:
            task = {"id": self.tasks, "body": body, "processed": 0, "tokens": []}
            self.tasks += 1
            self.queue.append(task)
            return task

    def look(self):
        with self.lock:
            self.passes += 1
            for place, task in enumerate(self.slots):
                if task is None and self.queue:
                    task = self.slots[place] = self.queue.pop(0)
                elif task is None:
                    continue
                left = len(task["body"]["prompt"]) - task["processed"]
                task["processed"] += min(left, 4)
                if left <= 4:
                    task["tokens"].append(100 + len(task["tokens"]))
                if len(task["tokens"]) == task["body"]["n_predict"]:
                    self.slots[place] = None
            self.lock.notify_all()
            return [self._slot(place, task) for place, task in enumerate(self.slots)]

    @staticmethod
    def _slot(place, task):
        if task is None:
            return ANSWERS["idle_slot"] | {"id": place}
        counts = {"n_prompt_tokens_processed": task["processed"], "n_prompt_tokens_cache": 0}
        done, most = len(task["tokens"]), task["body"]["n_predict"]
        params = ANSWERS["busy_slot"]["params"] | {"seed": task["body"]["seed"]}
        token = ANSWERS["busy_slot"]["next_token"][0] | {"n_decoded": done, "n_remain": most - done}
        busy = ANSWERS["busy_slot"] | counts
        return busy | {"id": place, "id_task": task["id"], "params": params, "next_token": [token]}

    def chunks(self, task):
        body = task["body"]
        for number in range(1, body["n_predict"] + 1):
            with self.lock:
                assert self.lock.wait_for(lambda n=number: len(task["tokens"]) >= n, timeout=20)
            yield ANSWERS["chunk"] | {"content": f" w{number}", "tokens": [99 + number], "tokens_predicted": number}
        timings = ANSWERS["last_chunk"]["timings"] | {"cache_n": 0, "prompt_n": len(body["prompt"])}
        yield ANSWERS["last_chunk"] | {"tokens_predicted": body["n_predict"], "stop_type": "limit", "timings": timings}


@contextmanager
def serving(stand_in=None, changed=None):
    """The stand-in's address; `changed` gives other answers: by path (status, bytes)."""
    stand_in, changed = stand_in or StandIn(), changed or {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def say(self, content, status=200):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            if self.path in changed:
                status, content = changed[self.path]
                return self.say(content, status)
            answers = {
                "/props": lambda: ANSWERS["props"],
                "/v1/models": lambda: ANSWERS["models"],
                "/slots": stand_in.look,
            }
            return self.say(json.dumps(answers[self.path]()).encode())

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path in changed:
                status, content = changed[self.path]
                return self.say(content, status)
            if self.path == "/apply-template":
                return self.say(json.dumps({"prompt": body["messages"][0]["content"]}).encode())
            if self.path == "/tokenize":
                return self.say(json.dumps({"tokens": list(range(len(body["content"].split())))}).encode())
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for chunk in stand_in.chunks(stand_in.submit(body)):
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
                self.wfile.flush()
            self.close_connection = True
            return None

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http_server.server_port}"
    finally:
        http_server.shutdown()
        http_server.server_close()


def prompts_file(folder, *lines):
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_server_that_answers_prompts_is_recorded_whole(tmp_path):
    asked = [
        {"id": "long", "prompt": "a b c d e f", "output_tokens": 6},
        {"id": "short", "prompt": "a b", "output_tokens": 4},
        {"id": "third", "prompt": "a b c", "output_tokens": 5},
    ]
    out = tmp_path / "run.jsonl"
    with serving() as url:
        assert main(["follow", url, "--prompts", str(prompts_file(tmp_path, *asked)), "--out", str(out)]) == 0
    assert main(["check", "--strict", str(out)]) == 0
    trace = Trace.read(out)
    assert [arrival.id for arrival in trace.arrivals] == ["long", "short", "third"]
    assert [arrival.prompt_tokens for arrival in trace.arrivals] == [6, 2, 3]
    events = [json.loads(line) for line in out.read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    by_request = {}
    for step in steps:
        tokens = iter(step["tokens"])
        for request, count in zip(step["requests"], step["sampled"], strict=True):
            by_request.setdefault(request, []).extend(next(tokens) for _ in range(count))
    assert by_request == {0: [100, 101, 102, 103, 104, 105], 1: [100, 101, 102, 103], 2: [100, 101, 102, 103, 104]}
    reasons = [ending["reason"] for step in steps for ending in step.get("finished", [])]
    assert reasons == ["length"] * 3
    header = events[0]
    assert header["engine"] == {"name": "llama.cpp", "version": ANSWERS["props"]["build_info"]}
    assert header["slots"] == ANSWERS["props"]["total_slots"]
    assert header["model"]["parameters"] == ANSWERS["models"]["data"][0]["meta"]["n_params"]
    assert header["device"]["kind"] == "unknown"
    assert "from one look" in header["config"]["a_step_is"]
    assert "kv_used" not in steps[0]


def test_following_without_prompts_ends_after_its_seconds(tmp_path):
    stand_in, out = StandIn(), tmp_path / "run.jsonl"
    stand_in.submit({"prompt": [1, 2, 3], "n_predict": 1000, "seed": 3})
    with serving(stand_in) as url:
        assert main(["follow", url, "--seconds", "0.4", "--out", str(out)]) == 0
    assert main(["check", "--strict", str(out)]) == 0
    trace = Trace.read(out)
    assert trace.arrivals[0].id == "task 0"
    assert len(trace.steps) > 3


@pytest.mark.parametrize(
    ("path", "status", "content", "said"),
    [
        ("/slots", 501, ANSWERS["slots_refused"], "Start it with `--slots`"),
        ("/slots", 501, {"error": {"message": "not supported"}}, "start llama-server with --slots"),
        ("/props", 401, {"error": {"message": "Invalid API Key"}}, "LLAMA_API_KEY"),
        ("/props", 200, {"name": "another server"}, "is not what llama.cpp's server answers"),
        ("/props", 200, None, "is not what llama.cpp's server answers"),
        ("/slots", 200, [{"id": "zero", "is_processing": True}], "is not what llama.cpp's server answers"),
        ("/tokenize", 500, {"error": {"message": "two\nlines"}}, "the server refuses (500): two lines"),
    ],
)
def test_a_server_that_refuses_is_named_in_one_line(tmp_path, capsys, path, status, content, said):
    raw = b"<html>" if content is None else json.dumps(content).encode()
    file, out = prompts_file(tmp_path, {"id": "a", "prompt": "a b"}), tmp_path / "run.jsonl"
    with serving(changed={path: (status, raw)}) as url:
        assert main(["follow", url, "--prompts", str(file), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tracereel: {url}{path}: ")
    assert said in line
    assert not out.exists()


def test_an_answer_without_end_and_a_server_that_does_not_answer(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server_module, "_MOST_BYTES", 1000)
    out = str(tmp_path / "run.jsonl")
    with serving(changed={"/props": (200, b" " * 2000)}) as url:
        assert main(["follow", url, "--out", out]) == 2
    assert "answers more than" in capsys.readouterr().err
    monkeypatch.setattr(server_module.Server, "timeout_s", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert main(["follow", url, "--out", out]) == 2
        assert "no answer in" in capsys.readouterr().err
    assert main(["follow", url, "--out", out]) == 2
    assert "refused" in capsys.readouterr().err


def test_an_answer_that_breaks_off_is_an_error_in_the_trace(tmp_path, capsys):
    file, out = prompts_file(tmp_path, {"id": "a", "prompt": "a b"}), tmp_path / "run.jsonl"
    with serving(changed={"/completion": (200, b'data: {"content": "x", "stop": false}\n\n')}) as url:
        assert main(["follow", url, "--prompts", str(file), "--out", str(out)]) == 1
    assert "1 answers broke off (a: " in capsys.readouterr().err
    assert main(["check", "--strict", str(out)]) == 0


@pytest.mark.parametrize(
    "url",
    ["?", "ftp://x", "http://", "http://x:99999", "http://x:port", "http://[::1", "http://..", f"http://{'a' * 70}"],
)
def test_what_is_no_address_is_refused(tmp_path, capsys, url):
    assert main(["follow", url, "--out", str(tmp_path / "run.jsonl")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no prompt"),
        ([{"id": "a"}], "line 1: Object missing required field `prompt`"),
        ([{"id": "a", "prompt": "x"}, {"id": "b", "prompt": ""}], "line 2: prompt"),
        ([{"id": "a", "prompt": "x", "output_tokens": 0}], "line 1: output_tokens: 0 is less than 1"),
        ([{"id": "a" * 600, "prompt": "x"}], "line 1: id: "),
        ([{"id": "a", "prompt": "x"}] * 2, "line 2: id: 'a' is on an earlier line"),
        ([{"id": str(i), "prompt": "x"} for i in range(MOST_PROMPTS + 1)], f"more than the {MOST_PROMPTS}"),
    ],
)
def test_a_prompt_file_is_refused_as_every_workload_file_is(tmp_path, capsys, lines, said):
    file = prompts_file(tmp_path, *lines)
    assert main(["follow", "http://127.0.0.1:1", "--prompts", str(file), "--out", str(tmp_path / "run.jsonl")]) == 2
    assert said in capsys.readouterr().err


def test_a_trace_is_named_as_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["follow", "http://127.0.0.1:1", "--out", str(tmp_path / "run.txt")])
    assert ended.value.code == 2
    assert "does not end in .jsonl or .jsonl.zst" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/props", b'{"total_slots": 1, "default_generation_settings": ' + b'{"a": ' * 5000 + b"1" + b"}" * 5001),
        ("/props", b'{"total_slots": 1, "model_path": "\xff\xfe"}'),
        ("/props", b'{"total_slots": 1' + b"0" * 400 + b"}"),
        ("/props", b'{"total_slots": 0}'),
        ("/slots", b'[{"id": -1, "is_processing": true}]'),
        ("/slots", b'[{"id": 0, "is_processing": true, "next_token": [{"n_decoded": 4611686018427387904}]}]'),
        ("/apply-template", b'{"prompt": ["a"]}'),
        ("/tokenize", b'{"tokens": "none"}'),
        ("/tokenize", b'{"tokens": [{"id": 1}]}'),
    ],
)
def test_an_answer_beyond_all_bounds_is_refused(tmp_path, capsys, path, content):
    file, out = prompts_file(tmp_path, {"id": "a", "prompt": "a b"}), tmp_path / "run.jsonl"
    with serving(changed={path: (200, content)}) as url:
        assert main(["follow", url, "--prompts", str(file), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tracereel: {url}{path}: is not what llama.cpp's server answers")
    assert not out.exists()


def test_a_key_that_no_header_holds_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LLAMA_API_KEY", "two\nlines")
    with serving() as url:
        assert main(["follow", url, "--out", str(tmp_path / "run.jsonl")]) == 2
    assert "Invalid header value" in capsys.readouterr().err


@contextmanager
def dragging(begin, more, every_s=0.02):
    """A server that answers every request with `begin`, and then with `more` again and again."""
    ended = threading.Event()

    def drag(connection):
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(begin)
            while not ended.wait(every_s):
                connection.sendall(more)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def accept():
            while not ended.is_set():
                with suppress(TimeoutError):
                    threading.Thread(target=drag, args=(listening.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["header", "body"])
def test_a_server_that_drags_its_answer_out_has_only_its_time(tmp_path, capsys, monkeypatch, begin):
    monkeypatch.setattr(server_module.Server, "timeout_s", 0.3)
    began = time.monotonic()
    with dragging(begin, b" ") as url:
        assert main(["follow", url, "--out", str(tmp_path / "run.jsonl")]) == 2
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err == f"tracereel: {url}/props: no answer in 0.3 s\n"


class Stalled(StandIn):
    """Takes prompts, works on none of them, and streams comments until `tokens` are wanted."""

    def __init__(self, tokens=False):
        super().__init__()
        self.endless = tokens

    def look(self):
        return [self._slot(place, None) for place in range(2)]

    def chunks(self, task):
        number = 0
        while True:
            number += 1
            time.sleep(0.001)
            token = {"content": "x", "tokens": [1], "tokens_predicted": number if self.endless else 0}
            yield ANSWERS["chunk"] | token


def test_an_answer_ends_with_the_tokens_that_were_asked_for(tmp_path, capsys):
    file, out = prompts_file(tmp_path, {"id": "a", "prompt": "a b", "output_tokens": 5}), tmp_path / "run.jsonl"
    with serving(Stalled(tokens=True)) as url:
        assert main(["follow", url, "--prompts", str(file), "--out", str(out)]) == 1
    assert "goes on beyond the 5 tokens that were asked for" in capsys.readouterr().err
    assert main(["check", "--strict", str(out)]) == 0


def test_where_no_slot_works_an_answer_is_not_waited_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server_module.Server, "timeout_s", 0.3)
    monkeypatch.setattr(server_module, "_MOST_OTHERS", 10**9)
    file, out = prompts_file(tmp_path, {"id": "a", "prompt": "a b"}), tmp_path / "run.jsonl"
    with serving(Stalled()) as url:
        assert main(["follow", url, "--prompts", str(file), "--out", str(out)]) == 1
    assert "1 answers broke off (no slot has worked for 0.3 s)" in capsys.readouterr().err
    assert main(["check", "--strict", str(out)]) == 0


def test_an_answer_may_wait_longer_for_its_slot_than_a_look_may_take(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module.Server, "timeout_s", 0.4)
    stand_in = StandIn()
    for seed in range(2):
        stand_in.submit({"prompt": [1], "n_predict": 40, "seed": seed})  # another client has both slots for long
    file, out = prompts_file(tmp_path, {"id": "a", "prompt": "a b", "output_tokens": 2}), tmp_path / "run.jsonl"
    with serving(stand_in) as url:
        assert main(["follow", url, "--prompts", str(file), "--interval-ms", "20", "--out", str(out)]) == 0
    assert sorted(arrival.id for arrival in Trace.read(out).arrivals) == ["a", "task 0", "task 1"]


def test_ctrl_c_ends_a_look_that_is_not_answered(tmp_path):
    out = tmp_path / "run.jsonl"
    looks = threading.Event()

    class Silent(StandIn):
        def look(self):
            if self.passes:
                looks.set()
                time.sleep(5)
            return super().look()

    with serving(Silent()) as url:
        command = [sys.executable, "-m", "tracereel.cli.main", "follow", url, "--out", str(out)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert looks.wait(20)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(4) == 0
        assert time.monotonic() - began < 3
        process.stderr.close()
    assert main(["check", str(out)]) == 0


def test_a_request_that_is_found_in_its_middle_has_rows_that_a_trace_can_hold(tmp_path):
    ledger = Ledger()
    ledger.look([], 50)
    ledger.look([seen(1, 9, 6, 3000)], 10**9)
    ledger.look([], 2 * 10**9)
    steps = steps_of(ledger.records(all_of_it=True))
    assert [step.sampled for step in steps] == [[1], [1024], [1024], [951]]
    assert [step.positions for step in steps] == [[0], [6], [1030], [2054]]


def test_what_was_followed_until_kill_9_can_be_read(tmp_path):
    stand_in, out = StandIn(), tmp_path / "run.jsonl"
    prompts = prompts_file(tmp_path, {"id": "a", "prompt": "a b c", "output_tokens": 2000})
    with serving(stand_in) as url:
        command = [sys.executable, "-m", "tracereel.cli.main", "follow", url, "--prompts", str(prompts)]
        process = subprocess.Popen(
            [*command, "--interval-ms", "5", "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        with stand_in.lock:
            assert stand_in.lock.wait_for(lambda: stand_in.passes > 100, timeout=30)
        process.kill()
        process.wait()
    assert not out.exists()
    (left,) = tmp_path.glob("*.partial")
    report = check(left)
    assert report.cut is not None
    assert not report.violations
    assert 20 < report.steps <= 105
