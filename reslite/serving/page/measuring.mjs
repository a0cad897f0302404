// The part of the page that times the files. Each is checked first. Then, start by start, each takes
// turns with the reference, in new workers; once the reference takes turns with itself, the control.
import { Engine } from "./engine.mjs";
import { checkOf, measurementOf, median, newRun, quantile } from "./measurement.mjs";
import { drawPlot } from "./plot.mjs";
import { leftOut, targetsOf } from "./targets.mjs";

const WARMUP = 2;
const ROUNDS = { least: 3, most: 30, milliseconds: 1500 };
const NAMES = ["file", "on", "median ms", "middle half ms", "speed", "output"];

const at = (id) => document.getElementById(id);

export function startMeasuring(bundle) {
  const files = bundle.files.filter((one) => !one.lacks);
  const needed = new Set(files.map((one) => one.runtime));
  const runtimes = Object.keys(bundle.runtimes).filter((one) => needed.has(one));
  const targets = runtimes.flatMap((one) => targetsOf(bundle, one));
  const chosenFiles = boxes(at("files"), files, (one) => one.file);
  const chosenTargets = boxes(at("targets"), targets, (one) => one.title);
  at("notes").textContent = leftOut();
  const taken = []; // every measurement of this visit
  const engines = new Set(); // those that are open
  let stopped = false;
  let lost = ""; // why the server kept no more

  async function measure() {
    const rows = chosenFiles().flatMap((file) =>
      chosenTargets()
        .filter((target) => target.runtime === file.runtime)
        .map((target) => ({ file, target, starts: [], ratios: [], output: "", failed: "" })),
    );
    if (!rows.length) return say("Choose a file and something it computes on.", true);
    say("");
    lost = "";
    const place = { run: newRun(), block: 0 };
    let kept = 0;
    for (const [index, row] of rows.entries()) {
      step(`checking ${row.file.file}`, index / rows.length);
      await check(row);
      if (row.facts?.software) kept += await keep([record(row, [], { ...place, order: 0, start: 0 })]);
      if (row.facts?.software) place.block++;
      show(rows);
      if (stopped) return;
    }
    const timed = rows.filter((one) => one.check && !one.facts.software);
    const reference = timed.find((one) => one.file.precision === "float32") ?? timed[0];
    if (reference) kept += await compare(rows, timed, reference, place);
    const where = bundle.exported ? "Save the results to keep them." : `The server keeps ${kept}.`;
    const more = lost && ` It keeps no more: ${lost} Save the results.`;
    if (!stopped) say(`Measured ${timed.length} of ${rows.length}. ${where}${more}`, Boolean(lost));
  }

  /** Run every row and the reference side by side, start by start; returns what the server keeps. */
  async function compare(rows, timed, reference, place) {
    const control = { ...reference, starts: [], ratios: [] };
    const pairs = [["control", control]];
    for (const row of timed) if (row !== reference) pairs.push(["file", row]);
    const starts = Number(at("starts").value);
    let [done, kept] = [0, 0];
    for (let start = 0; start < starts; start++) {
      for (const [role, row] of shuffled(pairs)) {
        step(`start ${start + 1} of ${starts}: ${row.file.file}`, done++ / (starts * pairs.length));
        const members = shuffled([["reference", reference], [role, row]]);
        try {
          const samples = await takeTurns(members.map(([, one]) => one));
          const found = members.map(([as, one], order) =>
            record(one, samples[order], { ...place, order, start, role: as }));
          place.block++;
          const [own, other] = members[0][1] === row ? samples : [...samples].reverse();
          row.starts.push(own);
          row.ratios.push(median(own.map((one, round) => other[round] / one)));
          if (row === control) reference.starts.push(other);
          kept += await keep(found);
        } catch (error) {
          if (stopped) return kept;
          row.failed ||= error.message;
        }
        show(rows, reference, control);
        if (stopped) return kept;
      }
    }
    return kept;
  }

  /** Time rows in turn, each in a worker of its own; returns the samples of each. */
  async function takeTurns(members) {
    const opened = [];
    try {
      for (const { file, target } of members) {
        opened.push(newEngine());
        await opened.at(-1).open(bundle, file, target);
      }
      for (const engine of opened) await engine.time(WARMUP);
      const samples = members.map(() => []);
      const begun = performance.now();
      for (let round = 0; round < ROUNDS.most; round++) {
        if (round >= ROUNDS.least && performance.now() - begun > ROUNDS.milliseconds) break;
        for (const [index, engine] of opened.entries()) samples[index].push(...(await engine.time(1)));
      }
      return samples;
    } finally {
      opened.forEach(close);
    }
  }

  /** Open a row's file once and compare what it makes of the golden picture. */
  async function check(row) {
    const engine = newEngine();
    try {
      row.facts = await engine.open(bundle, row.file, row.target);
      row.check = await engine.check(await goldenOf(row.file));
      row.output = checkOf(row.check);
      if (row.facts.software) row.output += "; adapter is a software fallback: no time";
    } catch (error) {
      row.failed = error.message;
    } finally {
      close(engine);
    }
  }

  const record = (row, samples, place) =>
    measurementOf(bundle, { ...row, samples, place: { role: "file", ...place } });

  /** Keep measurements here and at the server; returns how many it keeps. */
  async function keep(measurements) {
    taken.push(...measurements);
    if (bundle.exported) return 0;
    const body = JSON.stringify({ schema: bundle.schema, measurements });
    const headers = { "Content-Type": "application/json" };
    try {
      const reply = await fetch("results", { method: "POST", body, headers });
      const text = (await reply.text()).trim();
      if (reply.ok) return Number(text);
      lost ||= `${text}.`;
    } catch (error) {
      lost ||= `${error.message}.`;
    }
    return 0;
  }

  function newEngine() {
    const engine = new Engine();
    engines.add(engine);
    return engine;
  }

  function close(engine) {
    engine.close("stopped");
    engines.delete(engine);
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
    engines.forEach(close);
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

function step(text, share) {
  at("step").textContent = text;
  at("measured").value = share;
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

function show(rows, reference, control) {
  const timed = rows
    .filter((one) => one.starts.length)
    .sort((a, b) => median(a.starts.map(median)) - median(b.starts.map(median)));
  const others = rows.filter((one) => !one.starts.length && (one.failed || one.output));
  at("table").hidden = false;
  const lines = [...timed, ...others].map((one) => line(one, one === reference));
  at("table").tBodies[0].replaceChildren(...lines);
  const ratios = control?.ratios.map((one) => one.toFixed(2)).join(", ");
  at("control").textContent = ratios ? `The reference against itself, start by start: ${ratios}.` : "";
  drawPlot(at("plot"), timed.map(({ file, target, starts }) => ({
    title: `${file.file}, ${target.title}`,
    values: starts.map(median),
  })));
}

function line({ file, target, starts, ratios, output, failed, check }, isReference) {
  const all = starts.flat();
  const range = [0.25, 0.75].map((one) => quantile(all, one)?.toFixed(1)).join(" – ");
  const speed = ratios.length ? `${median(ratios).toFixed(2)}×` : "–";
  const cells = [
    file.file,
    target.title,
    all.length ? median(starts.map(median)).toFixed(1) : "–",
    all.length ? range : "–",
    isReference ? "reference" : speed,
    failed || output,
  ];
  const row = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = row.insertCell();
    cell.textContent = text;
    cell.dataset.name = NAMES[index];
    cell.classList.toggle("none", text === "–");
  });
  row.lastElementChild.classList.toggle("bad", Boolean(failed) || check?.passed === false);
  return row;
}
