// Times of the page in Chromium: a guest and a client with keys, for each choice of what is hidden, and the network in
// the clear beside them. Started by scripts/bench-web.

import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { Chromium } from "./chromium.mjs";
import { Work, dist, median, root } from "./native.mjs";

const [network = "vgg3", runs = "30"] = process.argv.slice(2);
copyFileSync(join(root, `crates/jali/bundled/${network}.onnx`), join(dist, "network.onnx"));
const work = new Work();
const demo = await work.serve("demo", "--browser", "--no-open", "--network", network, "--pages", dist);
const chromium = await Chromium.open(`${demo.url}/`);

/** In the page: classifies samples with a choice, and returns each time in ms, the label and the problem. */
async function classify(kind, plan, runs) {
  const sleep = (ms) => new Promise((over) => setTimeout(over, ms));
  const until = async (is) => {
    while (!is()) await sleep(5);
  };
  const { dataset } = document.body;
  await until(() => document.querySelector("input[name=plan]"));
  delete dataset.open;
  document.querySelectorAll("input[name=plan]")[plan].checked = true;
  document.querySelector(`input[name=kind][value=${kind}]`).checked = true;
  document.getElementById("plans").onchange();
  await until(() => dataset.open === kind);
  const samples = document.querySelectorAll("#samples button");
  const seen = [];
  for (let run = 0; run < runs; run += 1) {
    dataset.answer = "";
    samples[run % samples.length].click();
    await until(() => dataset.answer && document.getElementById("progress").hidden);
    if (dataset.answer === "problem") throw new Error(document.getElementById("problem").textContent);
    seen.push(Number(dataset.ms));
  }
  return seen;
}

/** In the page: runs the network in the clear. */
async function plain(runs) {
  const { default: init, Plain } = await import("./jali_web.js");
  await init();
  const network = new Plain(new Uint8Array(await (await fetch("network.onnx")).arrayBuffer()));
  const [input, seen] = [new Float32Array(runs.length).fill(0.5), []];
  for (let run = 0; run < runs.count; run += 1) {
    const begun = performance.now();
    network.run(input);
    seen.push(performance.now() - begun);
  }
  return seen;
}

try {
  const rows = [];
  const row = (name, times) => rows.push({ name, median: median(times), min: Math.min(...times), max: Math.max(...times) });
  for (const [plan, hidden] of ["everything", "the last three layers"].entries()) {
    for (const [kind, name] of [["guest", "guest"], ["keyed", "with keys"]]) {
      row(`${name}, ${hidden} hidden`, await chromium.run(classify, kind, plan, Number(runs)));
    }
  }
  const length = network === "mnist" ? 28 * 28 : 3 * 32 * 32;
  row("in the clear, in this page", await chromium.run(plain, { count: Number(runs), length }));
  console.log(`${network} in Chromium, ms from input to output, ${runs} images each\n`);
  for (const { name, median, min, max } of rows) {
    console.log(`${name.padEnd(38)} ${median.toFixed(1).padStart(7)}   (${min.toFixed(1)} to ${max.toFixed(1)})`);
  }
} finally {
  await chromium.close();
  work.end();
}
