// The part of the page that times the files: each start is a worker of its own, in shuffled order.
import { Engine } from "./engine.mjs";
import { checkOf, measurementOf, median, newRun, quantile } from "./measurement.mjs";
import { drawPlot } from "./plot.mjs";
import { leftOut, targetsOf } from "./targets.mjs";

const STARTS = 3;
const LIMITS = { warmup: 2, least: 3, most: 50, milliseconds: 1000 };

const NAMES = ["file", "on", "median ms", "middle half ms", "starts", "output"];

const at = (id) => document.getElementById(id);

export function startMeasuring(bundle) {
  const files = bundle.files.filter((one) => !one.lacks);
  const needed = new Set(files.map((one) => one.runtime));
  const targets = Object.keys(bundle.runtimes).filter((one) => needed.has(one)).flatMap(targetsOf);
  const chosenFiles = boxes(at("files"), files, (one) => one.file);
  const chosenTargets = boxes(at("targets"), targets, (one) => one.title);
  at("notes").textContent = leftOut();
  const taken = []; // every measurement of this visit
  let engine;
  let stopped = false;

  async function measure() {
    const rows = chosenFiles().flatMap((file) =>
      chosenTargets()
        .filter((target) => target.runtime === file.runtime)
        .map((target) => ({ file, target, starts: [], output: "", failed: "" })),
    );
    if (!rows.length) return say("Choose a file and something it computes on.", true);
    const run = newRun();
    let [block, done, kept] = [0, 0, 0];
    say("");
    for (let start = 0; start < STARTS; start++) {
      for (const row of shuffled(rows)) {
        if (stopped) return;
        at("step").textContent = `start ${start + 1} of ${STARTS}: ${row.file.file}`;
        at("measured").value = done++ / (STARTS * rows.length);
        if (row.failed || (start && !row.starts.length)) continue;
        const one = await measureOnce(row, { run, block: block++, start });
        show(rows);
        if (!one) continue;
        taken.push(one);
        kept += await post(one);
      }
    }
    const where = bundle.exported ? "Save the results to keep them." : `The server keeps ${kept}.`;
    say(`Measured ${rows.filter((one) => one.starts.length).length} of ${rows.length}. ${where}`);
  }

  /** Return the measurement of one start, or nothing if the file does not run. */
  async function measureOnce(row, place) {
    const { file, target } = row;
    engine = new Engine();
    try {
      const facts = await engine.open(bundle, file, target);
      if (!row.check) {
        row.check = await engine.check(await goldenOf(file));
        row.output = checkOf(row.check);
      }
      const samples = facts.software ? [] : await engine.time(LIMITS);
      if (samples.length) row.starts.push(samples);
      else row.output += "; adapter is a software fallback: no time";
      return measurementOf(bundle, { ...row, facts, samples, place });
    } catch (error) {
      row.failed = stopped ? "stopped" : error.message;
    } finally {
      engine.close();
    }
  }

  async function post(measurement) {
    if (bundle.exported) return 0;
    const body = JSON.stringify({ schema: bundle.schema, measurements: [measurement] });
    const headers = { "Content-Type": "application/json" };
    const reply = await fetch("results", { method: "POST", body, headers });
    if (!reply.ok) throw new Error(`the server keeps nothing: ${(await reply.text()).trim()}`);
    return Number(await reply.text());
  }

  at("start").onclick = async () => {
    stopped = false;
    buttons(true);
    try {
      await measure();
      if (stopped) say("Stopped.");
    } catch (error) {
      say(error.message, true);
    } finally {
      buttons(false);
      at("save").hidden = !taken.length;
    }
  };
  at("stop").onclick = () => {
    stopped = true;
    engine?.close("stopped");
  };
  at("save").onclick = () => {
    const text = JSON.stringify({ schema: bundle.schema, measurements: taken });
    const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const name = `${bundle.model}_browser.json`;
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
  };
}

async function goldenOf(file) {
  const reply = await fetch(`golden/${file.file}.json`);
  if (!reply.ok) throw new Error((await reply.text()).trim());
  return reply.json();
}

function buttons(working) {
  at("start").disabled = working;
  at("stop").hidden = !working;
  at("measuring").hidden = !working;
}

function say(text, bad = false) {
  at("told").textContent = text;
  at("told").classList.toggle("bad", bad);
}

function shuffled(list) {
  const mixed = [...list];
  for (let i = mixed.length - 1; i > 0; i--) {
    const other = Math.floor(Math.random() * (i + 1));
    [mixed[i], mixed[other]] = [mixed[other], mixed[i]];
  }
  return mixed;
}

/** List checkboxes, all checked; returns what tells the chosen ones. */
function boxes(place, list, title) {
  const inputs = list.map(() => Object.assign(document.createElement("input"), {
    type: "checkbox",
    checked: true,
  }));
  place.replaceChildren(...list.map((one, index) => {
    const label = document.createElement("label");
    label.append(inputs[index], ` ${title(one)}`);
    return label;
  }));
  return () => list.filter((_, index) => inputs[index].checked);
}

function show(rows) {
  const timed = rows
    .filter((one) => one.starts.length)
    .sort((a, b) => median(a.starts.map(median)) - median(b.starts.map(median)));
  const others = rows.filter((one) => !one.starts.length && (one.failed || one.output));
  at("table").hidden = false;
  at("table").tBodies[0].replaceChildren(...[...timed, ...others].map(line));
  drawPlot(at("plot"), timed.map(({ file, target, starts }) => ({
    title: `${file.file}, ${target.title}`,
    values: starts.map(median),
  })));
}

function line({ file, target, starts, output, failed, check }) {
  const all = starts.flat();
  const range = [0.25, 0.75].map((one) => quantile(all, one)?.toFixed(1)).join(" – ");
  const cells = [
    file.file,
    target.title,
    all.length ? median(starts.map(median)).toFixed(1) : "–",
    all.length ? range : "–",
    starts.length || "–",
    failed || output,
  ];
  const row = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = row.insertCell();
    cell.textContent = text;
    cell.dataset.name = NAMES[index];
  });
  row.lastElementChild.classList.toggle("bad", Boolean(failed) || check?.passed === false);
  return row;
}
