// The page: what is chosen, and what is shown. Keys, wallets and all computing are in worker.js.

import { clear, drawBytes, drawFilters, drawPicture, entropy, readable } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const calls = new Map();

/** Has the worker do something; `hear` hears what it says meanwhile. */
function ask(act, message = {}, hear = () => {}) {
  const id = calls.size ? Math.max(...calls.keys()) + 1 : 1;
  return new Promise((resolve, reject) => {
    calls.set(id, { resolve, reject, hear });
    worker.postMessage({ id, act, ...message });
  });
}

worker.onmessage = ({ data: { id, result, error, event } }) => {
  const call = calls.get(id);
  if (event) {
    call?.hear(event);
    return;
  }
  calls.delete(id);
  if (error) call?.reject(Object.assign(new Error(error.message), error));
  else call?.resolve(result);
};
worker.onerror = () => problem({ kind: "other", message: "this browser could not start the page's worker" });

// What a person reads when something goes wrong; the library's words follow.
const WORDS = {
  damaged: "A file is damaged, or is another one than it should be.",
  locked: "The key or the passphrase does not open the file.",
  "used-up": "No ticket is left: ask the owner for more.",
  expired: "The tickets' time is over: ask the owner for new ones.",
  refused: "The server refuses.",
  "wrong-answer": "The server's answer is not what it has to be. It was not used.",
  unreachable: "The server cannot be reached, or went away.",
  storage: "This browser cannot keep what must outlast a crash, so no ticket was used.",
  image: "The picture cannot be used.",
  kept: "It is open, and will not be here after a reload.",
  usage: "Not yet.",
};

function problem(error) {
  const words = WORDS[error.kind] ?? "That did not work.";
  const isDemo = state.demo && state.source?.files === chosenPlan()?.guest && error.message.includes("used before");
  const hint = isDemo ? " A demonstration's tickets belong to the browser that used them first: start it again." : "";
  $("problem").textContent = `${words} (${error.message})${hint}`;
}

/** Says how many tickets are left. */
function showLeft(facts, left) {
  if (left === undefined || facts !== state.open) return;
  const tickets = left === 1 ? "1 ticket" : `${left} tickets`;
  $("status").textContent = `“${facts.name}”: ${tickets} left, until ${facts.until}.`;
}

/** Takes away what belongs to another picture, or to what was open before. */
function clearPanes() {
  for (const id of ["seen", "received"]) clear($(id));
  $("answer").replaceChildren();
  $("received-text").textContent = "Nothing yet. The first 16 kB that it gets are drawn here, a byte a pixel.";
  $("summary").textContent = "Times and bytes of every layer appear here.";
  $("layers").hidden = true;
}

/** What is known and under way. */
const state = { demo: null, open: null, classes: null, busy: false, source: null, handing: null };
const size = (bytes) =>
  bytes < 1e3 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
const percent = (share) => `${(100 * share).toFixed(1)} %`;

const chosenKind = () => document.querySelector("input[name=kind]:checked").value;
const chosenPlan = () => state.demo?.plans[document.querySelector("input[name=plan]:checked")?.value ?? 0];

/** Opens files, the demonstration's or a person's own. */
async function open(source) {
  state.open = null;
  state.source = source;
  // Whoever chooses something else meanwhile wants that.
  const isCurrent = () => state.source === source;
  $("problem").textContent = "";
  $("status").textContent = "Opening …";
  if (!state.busy) clearPanes();
  // Without it the browser may drop which tickets are used when its disk is full. A refusal changes nothing here.
  navigator.storage?.persist?.().catch(() => {});
  const hear = ({ done, of }) => {
    if (isCurrent()) $("status").textContent = `Taking and checking the server's hints: ${done} of ${of} …`;
  };
  try {
    // A picture that was given before goes first: the worker takes it for what is open now.
    await state.handing;
    if (!isCurrent()) return;
    const facts = await ask("open", source, hear);
    if (!isCurrent()) return;
    state.open = facts;
    const [channels, height, width] = facts.imageSize;
    const layers = `${facts.layers.length} layers, pictures of ${width} × ${height}${channels === 1 ? ", grey" : ""}`;
    $("status").textContent =
      facts.kind === "guest"
        ? `“${facts.name}”: ${layers}. ${facts.left} tickets left, until ${facts.until}; an answer tells ${facts.outputBits} bits at most.`
        : `${layers}. The keys are in this page's memory.`;
    document.body.dataset.open = facts.kind;
    if (facts.isKept) $("forget").hidden = false;
    if (facts.warning) problem({ kind: "kept", message: facts.warning });
    await showOwner();
  } catch (error) {
    if (!isCurrent()) return;
    state.source = null;
    $("status").textContent = "Nothing is open.";
    problem(error);
  }
}

function openDemo() {
  const [kind, plan] = [chosenKind(), chosenPlan()];
  if (!plan) return undefined;
  state.classes = state.demo.classes;
  return open({ kind, files: plan[kind], options: { server: location.origin } });
}

function openOwn() {
  const kind = chosenKind();
  const file = (id) => $(id).files[0];
  const server = location.origin;
  const value = (id) => $(id).value.trim() || undefined;
  let source;
  if (kind === "keyed") {
    source = { kind, files: { bundle: file("bundle") }, options: { server, passphrase: $("passphrase").value || undefined, token: value("token") } };
  } else {
    const files = Object.fromEntries([...$("wallet").files].map((chosen) => [chosen.name, chosen]));
    source = { kind, files: { ...files, identity: file("identity") }, options: { server, owner: value("owner") } };
  }
  const names = kind === "keyed" ? ["bundle"] : ["manifest", "tickets", "key", "identity"];
  const missing = names.filter((name) => !source.files[name]);
  if (missing.length) {
    problem({ kind: "usage", message: `choose ${missing.map((name) => `“${name}”`).join(", ")} too` });
    return undefined;
  }
  state.classes = null;
  return open({ ...source, remember: $("remember").checked });
}

/** What the server received of one picture. */
class Received {
  constructor() {
    this.up = 0;
    this.down = 0;
    this.messages = 0;
    this.bytes = new Uint8Array(0);
  }

  hear({ isUp, length, bytes, layer }) {
    if (!isUp) {
      this.down += length;
      return;
    }
    this.up += length;
    this.messages += 1;
    if (layer !== undefined && this.bytes.length < 1 << 15) {
      const both = new Uint8Array(this.bytes.length + bytes.length);
      both.set(this.bytes);
      both.set(bytes, this.bytes.length);
      this.bytes = both;
    }
  }

  show() {
    if (!this.bytes.length) return;
    drawBytes($("received"), this.bytes, 128);
    $("received-text").textContent =
      `${size(this.up)} in ${this.messages} messages. It looks like noise: the first ${size(this.bytes.length)} have ${entropy(this.bytes).toFixed(3)} of 8 bits of entropy a byte.`;
  }
}

/** Marks the sample that is shown. */
function press(button) {
  $("samples").querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", other === button));
}

/** Classifies a picture. */
async function classify(file) {
  if (state.busy) return;
  if (!state.open) {
    const isOpening = state.source !== null;
    problem({ kind: "usage", message: isOpening ? "it is still opening" : "open a wallet or a client's bundle first" });
    document.body.dataset.answer = "problem";
    return;
  }
  state.busy = true;
  // Something else may be opened meanwhile.
  const facts = state.open;
  $("problem").textContent = "";
  $("progress").hidden = false;
  $("progress").removeAttribute("value");
  clearPanes();
  document.body.dataset.answer = "";
  const received = new Received();
  let handed;
  state.handing = new Promise((resolve) => (handed = resolve));
  try {
    const picture = await readable(file);
    // What the browser cannot draw, the library may read, or says what is wrong with it.
    await drawPicture($("seen"), picture).catch(() => clear($("seen")));
    const asked = ask("infer", { file: picture, number: facts.number }, (event) => received.hear(event));
    handed();
    const answer = await asked;
    received.show();
    showAnswer(answer, facts);
    showCosts(answer, received, facts);
  } catch (error) {
    received.show();
    problem(error);
    showLeft(facts, error.left);
    document.body.dataset.answer = "problem";
  } finally {
    handed();
    state.busy = false;
    $("progress").hidden = true;
  }
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function showAnswer({ output, probabilities, left }, facts) {
  const name = (index) => state.classes?.[index] ?? `class ${index}`;
  if (!probabilities) {
    const best = output.indexOf(Math.max(...output));
    const alone = element("p", { textContent: "The owner tells guests the class alone, not how sure it is." });
    $("answer").replaceChildren(element("p", { className: "best", textContent: name(best) }), alone);
  } else {
    const order = probabilities.map((share, index) => ({ share, index })).sort((a, b) => b.share - a.share).slice(0, 3);
    const bars = order.map(({ share, index }) =>
      element("div", { className: "bar" }, name(index), element("meter", { min: 0, max: 1, value: share, ariaLabel: name(index) }), percent(share)),
    );
    $("answer").replaceChildren(element("p", { className: "best", textContent: name(order[0].index) }), ...bars);
  }
  document.body.dataset.answer = $("answer").querySelector(".best").textContent;
  document.body.dataset.output = JSON.stringify([...output]);
  showLeft(facts, left);
}

function showCosts({ ms, readMs, layers }, { up, down, messages }, facts) {
  document.body.dataset.ms = ms.toFixed(1);
  $("summary").textContent =
    `${ms.toFixed(0)} ms, and ${readMs.toFixed(0)} ms to read the picture; ${size(up)} sent in ${messages} messages, ${size(down)} received.`;
  const rows = layers.map((layer) => {
    const where = facts.kind === "keyed" ? "server, masked" : layer.isOpen ? "you alone, in the clear" : "both, masked";
    const cells = [where, size(layer.bytesUp), size(layer.bytesDown), `${layer.waitedMs.toFixed(1)} ms`];
    const title = element("th", { scope: "row", textContent: `${layer.name} (${layer.kind})` });
    return element("tr", {}, title, ...cells.map((textContent) => element("td", { textContent })));
  });
  $("layers").tBodies[0].replaceChildren(...rows);
  $("layers").hidden = false;
}

/** What owner and server hold of the network: the demonstration knows. */
async function showOwner() {
  const plan = chosenPlan();
  const isDemo = plan && state.source.files === plan[state.source.kind];
  $("held").hidden = !isDemo;
  if (!isDemo) {
    clear($("filters"));
    $("owner-text").textContent = "The network's weights. No message of yours reaches the owner.";
    return;
  }
  const { owner } = state.demo;
  const served = plan[state.source.kind].served;
  const [weights, held] = await Promise.all(
    [owner.weights, served.part].map(async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer())),
  );
  drawFilters($("filters"), new Float32Array(weights.buffer), owner.shape);
  $("owner-text").textContent =
    `The first layer's ${owner.shape[0]} filters, of ${owner.count.toLocaleString("en")} weights. No message of yours reaches the owner.`;
  drawBytes($("held-picture"), held, 64);
  $("held-text").textContent =
    `The network as the server has it: ${size(served.bytes)}, ${percent(plan.hidden)} of the weights hidden.`;
}

function showDemo() {
  const { plans, samples } = state.demo;
  const options = plans.map(({ name, about }, index) => {
    const input = element("input", { type: "radio", name: "plan", value: index, checked: index === 0 });
    return element("label", {}, input, element("span", {}, element("b", { textContent: name }), about));
  });
  $("plans").append(...options);
  $("plans").hidden = false;
  const buttons = samples.map(({ file, label }) => {
    const image = element("img", { src: file, alt: `Sample: ${label}` });
    const button = element("button", { type: "button" }, image);
    button.setAttribute("aria-pressed", "false");
    button.onclick = async () => {
      if (state.busy) return;
      const picture = await fetch(file).then((response) => response.blob(), () => null);
      if (!picture) {
        problem({ kind: "unreachable", message: "it did not send the sample" });
        document.body.dataset.answer = "problem";
        return;
      }
      if (state.busy) return;
      classify(picture);
      press(button);
    };
    return button;
  });
  $("samples").append(...buttons);
}

function askForFiles() {
  $("status").textContent = "Choose the files that the owner gave you.";
}

function showKind() {
  const isKeyed = chosenKind() === "keyed";
  $("keyed-files").hidden = !isKeyed;
  $("guest-files").hidden = isKeyed;
}

$("kinds").onchange = () => {
  showKind();
  if (state.demo && !$("own").open) {
    openDemo();
    return;
  }
  // What was open belongs to the other kind.
  Object.assign(state, { open: null, source: null });
  askForFiles();
};
$("plans").onchange = () => {
  $("own").open = false;
  openDemo();
};
$("setup").onsubmit = (event) => {
  event.preventDefault();
  openOwn();
};
$("forget").onclick = async () => {
  await ask("forget").then(() => {
    $("forget").hidden = true;
  }, problem);
};
for (const id of ["picture", "camera"]) {
  $(id).onchange = ({ target }) => {
    press(null);
    if (target.files[0]) classify(target.files[0]);
    target.value = "";
  };
}
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) classify(event.dataTransfer.files[0]);
  });
}

async function start() {
  $("status").textContent = "Loading …";
  showKind();
  await ask("load");
  const response = await fetch("demo/demo.json", { cache: "no-store" });
  const isDemo = response.ok && response.headers.get("content-type")?.includes("json");
  const kept = await ask("kept").catch(() => null);
  $("forget").hidden = !kept;
  if (isDemo) {
    state.demo = await response.json();
    showDemo();
    await openDemo();
  } else if (kept) {
    document.querySelector(`input[name=kind][value=${kept.kind}]`).checked = true;
    showKind();
    await open(kept);
  } else {
    $("own").open = true;
    askForFiles();
  }
}

start().catch(problem);
