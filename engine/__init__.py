"""Requests in, tokens and steps out: a small continuous-batching engine that records what it does.

Public interface; everything else may change between versions:

- `tracereel.engine.api`: all that a program needs to run a model (`load_model`, `generate`, `Engine`, `OnlineEngine`,
  `EngineConfig`, `Request`, `SamplingParams`, and the errors they raise). `docs/engine.md` shows how it goes together.
- `tracereel.engine.policies`: `Policy`, `Batch`, `POLICIES`, to write a scheduling policy.
- `tracereel.engine.scheduler`: `Scheduler` and its values `StepPlan` and `StepOutcome`, to drive it without a model.
- `tracereel.engine.workload`, `.workload_files`, `.suite`, `.recording`: what is recorded by `tracereel record`.
- `tracereel.engine.adapters`: recorders of other engines. They import `tracereel.trace` alone.

Imports `tracereel.trace` to record; knows nothing of films. The scheduler and its policies import no torch, so that
they can be read, tested and timed without it.
"""
