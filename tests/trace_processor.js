// Runs the trace processor of ui.perfetto.dev (WebAssembly, in the page's own worker bundle) outside of a browser:
// its byte protocol on stdin and stdout. `node trace_processor.js FOLDER`, where FOLDER holds engine_bundle.js and
// trace_processor.wasm. The bundle refuses to run where it sees Node, so it is shown a worker instead.
const fs = require("fs");
const path = require("path");

const folder = process.argv[2];
const say = (...words) => process.stderr.write(words.join(" ") + "\n");

class FileRequest {
  open(method, url) {
    this.file = path.join(folder, path.basename(url));
  }
  send() {
    const bytes = fs.readFileSync(this.file);
    this.response = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  }
}

const names = ["self", "process", "WorkerGlobalScope", "importScripts", "XMLHttpRequest", "console"];
const worker = { location: { href: "file:///" } };
const shown = [worker, undefined, Object, () => {}, FileRequest, { log: say, warn: say, error: say }];
new Function(...names, fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"))(...shown);

// The engine has started once what is queued now has run.
setTimeout(() => {
  const port = { postMessage: (bytes) => fs.writeSync(1, bytes) };
  worker.onmessage({ data: port });
  process.stdin.on("data", (bytes) => port.onmessage({ data: new Uint8Array(bytes) }));
});
