// Answers SQL about a trace with Perfetto's own trace_processor (WebAssembly), without a browser.
//   node trace_processor.mjs ASSETS TRACE SQL...   ->  a JSON list of rows per query
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

const [assets, trace, ...queries] = process.argv.slice(2);
const quiet = () => {};
console.log = console.warn = console.info = console.debug = quiet;
// The engine is made for a web worker: it finds one here.
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = class {};
globalThis.location = { href: pathToFileURL(assets).href + "/" };
globalThis.katWasm = new Uint8Array(readFileSync(join(assets, "trace_processor.wasm")));
const changes = [
  ["this.useMemory64 = hasMemory64Support();", "this.useMemory64 = false;"],
  ["locateFile: (s) => s,", "locateFile: (s) => s, wasmBinary: globalThis.katWasm,"],
  ["const wasmBridge = new wasm_bridge_1.WasmBridge();", "const wasmBridge = globalThis.katBridge = new wasm_bridge_1.WasmBridge();"],
];
let glue = readFileSync(join(assets, "engine_bundle.node.js"), "utf8");
for (const [from, to] of changes) {
  if (!glue.includes(from)) throw new Error(`the engine has changed: no ${from}`);
  glue = glue.replace(from, to);
}
vm.runInThisContext(glue, { filename: "engine.js" });
const { EngineBase } = await import(pathToFileURL(join(assets, "engine.mjs")).href);

class Engine extends EngineBase {
  mode = "WASM";
  id = "kat";
  constructor(port) {
    super();
    this.port = port;
    port.onmessage = (message) => { if (message.data instanceof Uint8Array) this.onRpcResponseBytes(message.data); };
  }
  rpcSendRequestBytes(data) { this.port.postMessage(data); }
  [Symbol.dispose]() {}
}

const channel = new MessageChannel();
globalThis.katBridge.initialize(channel.port1);
const engine = new Engine(channel.port2);
// The bridge has a buffer as soon as it is compiled: until then it would lose a message.
while (!globalThis.katBridge.reqBufferAddr) await new Promise((done) => setTimeout(done, 5));
await engine.parse(new Uint8Array(readFileSync(trace)));
await engine.notifyEof();
const answers = [];
for (const sql of queries) {
  const result = await engine.query(sql);
  if (result.error()) throw new Error(result.error());
  const rows = [];
  for (const it = result.iter({}); it.valid(); it.next()) {
    rows.push(Object.fromEntries(result.columns().map((name) => [name, it.get(name)])));
  }
  answers.push(rows);
}
// as texts: times are larger than JavaScript's exact numbers
process.stdout.write(JSON.stringify(answers, (_, v) => (typeof v === "bigint" ? `int:${v}` : v)), () => process.exit(0));
