"""The SGLang adapter with stand-ins of SGLang 0.5.23's shapes; `make test-engines` records SGLang itself."""

import sys
from dataclasses import make_dataclass
from types import ModuleType, SimpleNamespace

import msgspec
import pytest
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.export import NOTE, WEIGHTS, Note
from tracereel.engine.adapters.sglang import pieces, plugin, taps
from tracereel.engine.adapters.sglang.pieces import BATCH
from tracereel.trace.check.conformance import strictly
from tracereel.trace.check.invariants import check
from tracereel.trace.format.identity import file_digest
from tracereel.trace.state.columns import Trace


def request(rid, prompt, most):
    return SimpleNamespace(
        rid=rid,
        origin_input_ids=list(range(prompt)),
        output_ids=[],
        sampling_params=SimpleNamespace(max_new_tokens=most),
        priority=None,
        finished_reason=None,
        done=0,
        known=prompt,
    )


class Scheduler:
    """As much of SGLang's scheduler as the adapter touches; a prefill goes first, in chunks of four tokens."""

    def __init__(self, *, overlap=False, speculative=False):
        self.enable_overlap = overlap
        self.spec_algorithm = SimpleNamespace(is_none=lambda: not speculative)
        self.disaggregation_mode = SimpleNamespace(value="null")
        self.dllm_config, self.is_generation = None, True
        self.is_hybrid_swa = self.is_hybrid_ssm = False
        self.page_size, self.max_total_num_tokens, self.max_running_requests = 4, 64, 2
        self.tokenizer, self.chunked_prefill_size, self.schedule_policy = None, 4, "fcfs"
        self.server_args = SimpleNamespace(model_path="models/tiny", load_format="dummy", device="cpu")
        self.model_config = SimpleNamespace(dtype="torch.bfloat16")
        self.token_to_kv_pool_allocator = SimpleNamespace(available_size=lambda: 64 - self.held())
        self.tree_cache = SimpleNamespace(evictable_size=lambda: 0)
        self.waiting_queue, self.running, self.results, self.told = [], [], [], []

    def held(self):
        return sum(-(-req.done // 4) * 4 for req in self.running)

    def _add_request_to_queue(self, req, is_retracted=False):
        self.waiting_queue.append(req)

    def abort_request(self, rid):
        """In the queue; and amid a prompt, of which SGLang makes no further batch then."""
        for queue in (self.waiting_queue, self.running):
            for req in [req for req in queue if req.rid == rid]:
                queue.remove(req)
                self.send_abort_output("aborted", req)

    def send_abort_output(self, abort_req, req):
        self.told.append(req.rid)

    def get_next_batch_to_run(self):
        unread = [req for req in self.running if req.done < len(req.origin_input_ids)]
        if not unread and self.waiting_queue and len(self.running) < self.max_running_requests:
            unread = [self.waiting_queue.pop(0)]
            self.running += unread
        if unread:
            (req,) = unread
            batch = self.batch([req], True, [req.done], [min(4, req.known - req.done)])
        elif self.running:
            batch = self.batch(list(self.running), False, None, [1] * len(self.running))
        else:
            return SimpleNamespace(batch_to_run=None)
        for req, width in zip(batch.reqs, batch.extend_lens, strict=True):
            req.done += width
            batch.samples.append(req.done == req.known)
            req.known += req.done == req.known
        return SimpleNamespace(batch_to_run=batch)

    @staticmethod
    def batch(reqs, extend, prefixes, widths):
        mode = SimpleNamespace(is_extend=lambda: extend)
        return SimpleNamespace(reqs=reqs, forward_mode=mode, prefix_lens=prefixes, extend_lens=widths, samples=[])

    def process_batch_result(self, batch, result):
        for req, samples in zip(batch.reqs, batch.samples, strict=True):
            if req.finished_reason is not None or not samples:
                continue
            req.output_ids.append(100 + len(req.output_ids))
            if len(req.output_ids) == req.sampling_params.max_new_tokens:
                req.finished_reason = SimpleNamespace(to_json=lambda: {"type": "length"})
                self.running = [other for other in self.running if other is not req]

    def run_event_loop(self):
        """Without overlap, or with one batch on its way while the one before is processed."""
        while True:
            batch = self.get_next_batch_to_run().batch_to_run
            if batch is not None:
                self.results.append(batch)
            while self.results and (len(self.results) > self.enable_overlap or batch is None):
                self.process_batch_result(self.results.pop(0), None)
            if batch is None and not self.results:
                return


class Registry:
    """SGLang's registry of hooks: this one wraps at once."""

    @staticmethod
    def register(target, hook, kind):
        assert kind == "around"
        name = target.rsplit(".", 1)[1]
        original = getattr(Wrapped, name)
        setattr(Wrapped, name, lambda *args, **kwargs: hook(original, *args, **kwargs))


class Wrapped(Scheduler):
    pass


@pytest.fixture
def wrapped(monkeypatch, tmp_path):
    """The scheduler's class as SGLang has it once its plugins are loaded, and the folder of the recordings."""
    for name in plugin.METHODS:
        monkeypatch.setattr(Wrapped, name, getattr(Scheduler, name))
    parallel = SimpleNamespace(tp_rank=0, tp_size=2, pp_size=1, attn_dp_size=1, dp_rank=None)
    kinds = SimpleNamespace(AROUND="around")
    for name, what in {
        plugin.SCHEDULER: {"Scheduler": Wrapped},
        "sglang.srt.plugins.hook_registry": {"HookRegistry": Registry, "HookType": kinds},
        "sglang.srt.runtime_context": {"get_parallel": lambda: parallel},
        "sglang.srt.managers.schedule_batch": {"ScheduleBatch": make_dataclass("ScheduleBatch", BATCH)},
    }.items():
        module = ModuleType(name)
        vars(module).update(what)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv(plugin.ENVIRONMENT, str(tmp_path))
    plugin.plugin()
    return Wrapped


def recorded(scheduler, folder, *requests):
    def loop(self):
        for each in requests:
            self._add_request_to_queue(each)
        self.abort_request("gone")
        Scheduler.run_event_loop(self)

    taps.run_event_loop(loop, scheduler)
    (path,) = folder.glob("*.jsonl.zst")
    return path


@pytest.mark.parametrize("overlap", [False, True])
def test_batches_are_steps_with_overlap_and_without(wrapped, tmp_path, overlap):
    asked = [request("a", 6, 3), request("b", 3, 4), request("gone", 3, 4), request("c", 9, 2)]
    path = recorded(wrapped(overlap=overlap), tmp_path, *asked)
    report = check(path)
    assert report.ok, report.violations
    assert not list(strictly(path))
    trace = Trace.read(path)
    assert [arrival.id for arrival in trace.arrivals] == ["a", "b", "gone", "c"]
    assert [len(trace.tokens_of(i)) for i in range(4)] == [3, 4, 0, 2]
    assert trace.header.engine.name == "SGLang"
    assert trace.header.model.weights == "random"
    assert trace.header.kv_blocks == 16
    assert (trace.steps.padding.sum() > 0) == overlap  # a request's end is seen when it runs once more already


def run(scheduler, folder, script):
    """A recording of a scheduler that does what the script says, and then what is left to do."""

    def loop(self):
        script(self)
        Scheduler.run_event_loop(self)

    taps.run_event_loop(loop, scheduler)
    (path,) = folder.glob("*.jsonl.zst")
    assert check(path).ok, check(path).violations
    assert not list(strictly(path))
    return Trace.read(path)


@pytest.mark.parametrize("retracted", [False, True])
def test_one_that_comes_back_to_the_queue_was_preempted_whatever_sglang_calls_it(wrapped, tmp_path, retracted):
    """SGLang says so of what it retracts for want of KV, not of what makes room for a higher priority or a pause."""
    asked = request("a", 4, 6)

    def script(scheduler):
        scheduler._add_request_to_queue(asked)
        for _ in range(2):
            batch = scheduler.get_next_batch_to_run().batch_to_run
            scheduler.process_batch_result(batch, None)
        scheduler.running.clear()
        asked.done = 0
        scheduler._add_request_to_queue(asked, retracted)

    trace = run(wrapped(), tmp_path, script)
    assert trace.residencies.preempted.tolist() == [True, False]
    assert len(trace.tokens_of(0)) == 6


@pytest.mark.parametrize("overlap", [False, True])
def test_one_that_is_aborted_amid_its_prompt_ends_there(wrapped, tmp_path, overlap):
    asked = request("a", 12, 6)

    def script(scheduler):
        scheduler._add_request_to_queue(asked)
        batch = scheduler.get_next_batch_to_run().batch_to_run
        if overlap:
            scheduler.abort_request("a")
        scheduler.process_batch_result(batch, None)
        if not overlap:
            scheduler.abort_request("a")
        scheduler._add_request_to_queue(request("b", 4, 2))

    scheduler = wrapped(overlap=overlap)
    trace = run(scheduler, tmp_path, script)
    assert [reason for _, reason, _ in trace.endings.values()] == ["abort", "length"]
    assert scheduler.told == ["a"]


def test_what_never_came_does_not_end_and_what_is_gone_is_forgotten(wrapped, tmp_path):
    def script(scheduler):
        scheduler.send_abort_output("refused at the door", request("refused", 4, 2))
        scheduler._add_request_to_queue(request("a", 4, 2))
        scheduler.abort_request("a")
        tap = scheduler._tracereel_tap
        assert (tap._present, tap._reached) == (set(), {})

    assert [arrival.id for arrival in run(wrapped(), tmp_path, script).arrivals] == ["a"]


def test_batches_without_requests_are_no_steps(wrapped, tmp_path):
    """As those of a rank that runs along with others."""

    def script(scheduler):
        idle = scheduler.batch([], False, None, [])
        scheduler._tracereel_tap.scheduled(idle, 0, 0)
        scheduler.process_batch_result(idle, None)
        scheduler._add_request_to_queue(request("a", 4, 1))

    assert len(run(wrapped(), tmp_path, script).steps.batch) == 1


@pytest.mark.parametrize(("enabled", "low_first", "priority"), [(False, False, 0), (True, False, -3), (True, True, 3)])
def test_a_lower_priority_goes_first_in_the_trace_whatever_sglang_is_set_to(
    wrapped, tmp_path, enabled, low_first, priority
):
    scheduler = wrapped()
    scheduler.enable_priority_scheduling, scheduler.schedule_low_priority_values_first = enabled, low_first
    asked = request("a", 4, 1)
    asked.priority = 3
    trace = run(scheduler, tmp_path, lambda scheduler: scheduler._add_request_to_queue(asked))
    assert trace.arrivals[0].priority == priority
    assert trace.header.parallel.tensor == 2


def test_beams_end_the_recording_with_one_line(wrapped, tmp_path, caplog):
    asked = request("a", 4, 1)
    asked.beam_group = object()
    taps.run_event_loop(lambda self: self._add_request_to_queue(asked), wrapped())
    assert "the recording ends here: beam search cannot be recorded" in caplog.text


@pytest.mark.parametrize("name", plugin.METHODS)
def test_a_fault_in_any_wrapper_does_not_reach_the_server(wrapped, tmp_path, monkeypatch, name):
    """What SGLang gives is nothing that the adapter knows."""
    scheduler, what = wrapped(), object()

    def inside(self):
        wrapper = getattr(taps, name.lstrip("_"))
        assert wrapper(lambda *args: what, self, what, what) is what

    if name == "run_event_loop":
        monkeypatch.setitem(sys.modules, "sglang.srt.runtime_context", None)
        assert taps.run_event_loop(lambda self: what, scheduler) is what
        return
    taps.run_event_loop(inside, scheduler)


def test_what_cannot_be_recorded_is_said_and_the_server_goes_on(wrapped, tmp_path, caplog):
    scheduler = wrapped(speculative=True)
    asked = request("a", 3, 2)
    taps.run_event_loop(lambda self: (self._add_request_to_queue(asked), Scheduler.run_event_loop(self)), scheduler)
    assert asked.output_ids == [100, 101]
    assert "speculative decoding cannot be recorded" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_fault_of_the_recording_does_not_reach_the_server(wrapped, tmp_path, caplog):
    scheduler = wrapped()
    asked = request("a", 3, 2)
    asked.sampling_params = SimpleNamespace()
    taps.run_event_loop(lambda self: (self._add_request_to_queue(asked), None), scheduler)
    assert scheduler.waiting_queue == [asked]
    assert "the recording ends here" in caplog.text


def test_a_missing_method_is_named(wrapped, monkeypatch):
    monkeypatch.setattr(sys.modules[plugin.SCHEDULER], "Scheduler", SimpleNamespace(run_event_loop=None))
    with pytest.raises(AdapterError, match=r"no Scheduler\._add_request_to_queue"):
        plugin.plugin()


def test_what_a_scheduler_or_a_batch_lacks_is_named_in_one_line(wrapped, tmp_path, monkeypatch, caplog):
    scheduler = wrapped()
    del scheduler.tree_cache.evictable_size, scheduler.page_size
    batch = make_dataclass("ScheduleBatch", [name for name in BATCH if name != "extend_lens"])
    monkeypatch.setattr(sys.modules["sglang.srt.managers.schedule_batch"], "ScheduleBatch", batch)
    taps.run_event_loop(lambda self: None, scheduler)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "no Scheduler.page_size, Scheduler.tree_cache.evictable_size, ScheduleBatch.extend_lens, which" in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_an_untried_version_is_warned_of_and_recorded(wrapped, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pieces, "version", lambda name: "9.9.9")
    path = recorded(wrapped(), tmp_path, request("a", 3, 2))
    assert "SGLang 9.9.9 has not been tried (tried: 0.5.23)" in caplog.text
    assert Trace.read(path).header.engine.version == "9.9.9"


def test_a_model_folder_says_itself_that_its_weights_are_random(wrapped, tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"weights")
    digest = file_digest(folder / WEIGHTS)
    note = Note(
        name="tiny-gpt2", digest=digest, architecture="gpt2", parameters=7, weights_sha256=digest, weights="random"
    )
    (folder / NOTE).write_bytes(msgspec.json.encode(note))
    scheduler = wrapped()
    scheduler.server_args.model_path, scheduler.server_args.load_format = str(folder), "auto"
    model = Trace.read(recorded(scheduler, tmp_path, request("a", 3, 2))).header.model
    assert (model.name, model.weights, model.dtype, model.parameters) == ("tiny-gpt2", "random", "bf16", 7)


def test_a_tried_version_is_not_warned_of(wrapped, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pieces, "version", lambda name: "0.5.23")
    recorded(wrapped(), tmp_path, request("a", 3, 2))
    assert not caplog.records


def test_without_the_variable_nothing_is_imported(monkeypatch):
    monkeypatch.delenv(plugin.ENVIRONMENT, raising=False)
    monkeypatch.setitem(sys.modules, plugin.SCHEDULER, None)
    plugin.plugin()
