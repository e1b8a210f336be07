// Links to an instant: #run=DIGEST[,DIGEST]&t=SECONDS&cell=SLOT,STEP. t is the first run's own engine time in seconds.
// #film=SECOND leads to what the film shows then; a film's QR code names its traces in words.

/** What a link says, as far as it says something that can be: {keys, named, seconds, film, cell}. */
export function readLink(hash) {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const cell = /^(\d{1,7}),(\d{1,9})$/.exec(parameters.get("cell") ?? "");
  const second = (name) => {
    const text = parameters.get(name);
    return text !== null && /^\d{1,10}(\.\d{1,9})?$/.test(text) ? Number(text) : null;
  };
  return {
    keys: (parameters.get("run") ?? "").split(",").filter((key) => /^[0-9a-f]{1,64}$/.test(key)).slice(0, 2),
    named: decoded(hash).match(/\b[0-9a-f]{12}\b/g)?.slice(0, 64) ?? [],
    seconds: second("t"),
    film: second("film"),
    cell: cell ? { slot: Number(cell[1]), step: Number(cell[2]) } : null,
  };
}

function decoded(hash) {
  try {
    return decodeURIComponent(hash);
  } catch {
    return "";
  }
}

/** The link to what is shown. */
export function writeLink(runs, t, focus) {
  const ns = BigInt(Math.round(t)) + BigInt(runs[0].facts.begin_ns);
  const text = `${ns / 1000000000n}.${String(ns % 1000000000n).padStart(9, "0")}`.replace(/\.?0+$/, "");
  const cell = focus ? `&cell=${focus.slot},${focus.step}` : "";
  return `#run=${runs.map((run) => run.facts.key).join(",")}&t=${text}${cell}`;
}
