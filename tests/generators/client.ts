// Drives the API with the types that openapi-typescript makes: upload, create, poll, page, export.
// Run by tests/e2e/generators.rs: client.js URL ROOT.

import assert from "node:assert";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

type Scenario = components["schemas"]["ScenarioView"];
type Prediction = components["schemas"]["Prediction"];

const [url, root] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: url });
const FRAMES = 500;
const DEADLINE_MS = 60_000;

/** openapi-typescript says `string` for bytes. */
async function bytes(path: string): Promise<string> {
  return new Blob([await readFile(`${root}/${path}`)]) as unknown as string;
}

const raw = { bodySerializer: (body: unknown) => body as Blob, headers: { "Content-Type": "application/octet-stream" } };

async function upload(): Promise<void> {
  const model = await client.POST("/model", {
    params: { query: { name: "street" } },
    body: await bytes("assets/street.onnx"),
    ...raw,
  });
  assert(model.data?.manifest.kind === "model", JSON.stringify(model.error));
  assert.equal(model.data.manifest.inputs[0]?.shape[1], 3);
  await client.POST("/video", { params: { query: { name: "street" } }, body: await bytes("assets/demo1.mp4"), ...raw });
  for (const name of ["yolo", "line_counter"]) {
    const plugin = await client.POST("/plugin", {
      body: { file: await bytes(`target/plugins/wasm32-wasip2/release/${name}.wasm`) },
      bodySerializer: (body) => {
        const form = new FormData();
        form.append("file", (body as { file: unknown }).file as Blob);
        return form;
      },
    });
    assert(plugin.data, JSON.stringify(plugin.error));
  }
  const { data } = await client.GET("/plugin", { params: { query: { limit: 1 } } });
  assert.equal(data?.items[0]?.name, "line-counter");
}

async function run(): Promise<Scenario> {
  const line = [[0.5, 0], [0.5, 1]];
  const created = await client.POST("/scenario/init", {
    body: {
      source: { video: "street@1" },
      model: "street@1",
      plugins: { post: [{ use: "yolo" }, { use: "line-counter", config: { line } }] },
    },
  });
  assert(created.data, JSON.stringify(created.error));
  const { id } = created.data;
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end; await sleep(50)) {
    const { data } = await client.GET("/scenario/{id}", { params: { path: { id } } });
    assert(data && data.state !== "failed", JSON.stringify(data));
    if (data.state === "completed") return data;
  }
  assert.fail("the scenario did not complete");
}

async function read(id: string): Promise<void> {
  const paged: Prediction[] = [];
  let cursor: string | undefined;
  do {
    const { data } = await client.GET("/prediction/{id}", { params: { path: { id }, query: { limit: 200, cursor } } });
    assert(data);
    paged.push(...data.items);
    cursor = data.next_cursor ?? undefined;
  } while (cursor);
  assert.equal(paged.length, FRAMES);
  const { data } = await client.GET("/prediction/{id}/export", { params: { path: { id } }, parseAs: "text" });
  assert(data);
  const exported = data.trimEnd().split("\n").map((text) => JSON.parse(text) as Prediction);
  assert.deepEqual(exported, paged);
}

await upload();
await read((await run()).id);
const { error } = await client.GET("/model/{name}/{version}", { params: { path: { name: "nothing", version: "1" } } });
assert.equal(error?.code, "artifact_not_found");
