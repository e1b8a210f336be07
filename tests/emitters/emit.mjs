// A trace written by JavaScript: node emit.mjs run.jsonl. A toy with one slot answers one request.

import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";

const file = openSync(process.argv[2], "w");
const digest = createHash("sha256");
const zero = process.hrtime.bigint();
const now = () => Number(process.hrtime.bigint() - zero);

const record = (fields, hashed = true) => {
  const line = JSON.stringify(fields) + "\n";
  if (hashed) digest.update(line);
  writeSync(file, line);
};

record({
  event: "header",
  schema: 1,
  engine: { name: "toy in JavaScript", version: "1" },
  policy: "continuous",
  slots: 1,
  model: { name: "toy", weights: "random", dtype: "fp32" },
  device: { kind: "cpu", name: "a toy" },
  workload: { name: "one question" },
  // Doubles are good to some 100 ns here; all other times are small numbers that count from the first of these.
  clock: { monotonic_ns: Number(zero), wall_ns: Date.now() * 1e6 },
});
record({ event: "arrival", request: 0, id: "q", arrival_ns: 0, submitted_ns: now(), prompt_tokens: 4 });
for (const [had, text] of ["one ", "two ", "three"].entries()) {
  record({
    event: "step",
    index: had,
    start_ns: now(),
    end_ns: now(),
    requests: [0],
    slots: [0],
    phases: had ? "D" : "P",
    positions: [had ? 3 + had : 0],
    computed: [had ? 1 : 4],
    sampled: [1],
    tokens: [had],
    texts: [text],
    waiting: 0,
    running: 1,
    ...(had === 0 && { admitted: [{ request: 0, slot: 0 }] }),
    ...(had === 2 && { finished: [{ request: 0, reason: "stop" }] }),
  });
}
record({ event: "end", at_ns: now(), requests: 1, steps: 3, output_tokens: 3, digest: digest.digest("hex") }, false);
closeSync(file);
