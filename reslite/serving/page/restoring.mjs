// The part of the page that restores a picture.
import { Engine } from "./engine.mjs";
import { canvasOf, download, pixelsOf, readPicture } from "./picture.mjs";
import { targetsOf } from "./targets.mjs";
import { Viewer } from "./viewer.mjs";

const at = (id) => document.getElementById(id);

export function startRestoring(bundle) {
  const files = bundle.files.filter((one) => !one.lacks).sort((a, b) => rank(a) - rank(b));
  const viewer = new Viewer(at("view"), at("split"));
  let engine; // { opened, key }: the file and target that are open
  let result; // { canvas, name }
  let running = false;

  const chosen = () => {
    const file = files[at("file").value];
    return { file, target: targetsOf(bundle, file.runtime)[at("target").value] };
  };
  const listTargets = () =>
    fill(at("target"), targetsOf(bundle, chosen().file.runtime), (one) => one.title);
  fill(at("file"), files, (one) => `${one.file} (${Math.ceil(one.bytes / 1000)} kB)`);
  at("file").onchange = listTargets;
  listTargets();

  async function open() {
    const { file, target } = chosen();
    const key = `${file.file} ${target.title}`;
    if (engine?.key === key) return;
    engine?.opened.close();
    engine = { opened: new Engine(), key };
    say(`opening ${file.file} …`);
    await engine.opened.open(bundle, file, target);
  }

  async function restore(picture) {
    if (running) return say("One picture at a time; cancel the first.", true);
    running = true;
    show({ working: true });
    try {
      const { file, target } = chosen();
      const { canvas, note } = await readPicture(picture, file.scale);
      await open();
      say(`${note} Restoring on ${target.title} …`);
      const begun = performance.now();
      const restored = await engine.opened.restore(pixelsOf(canvas), ([done, all]) => {
        at("progress").value = done / all;
        at("tiles").textContent = `tile ${done} of ${all}`;
      });
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      const name = `${picture.name.replace(/\.[^.]*$/, "") || "photo"}_x${file.scale}.png`;
      result = { canvas: canvasOf(restored), name };
      show({ result: true });
      viewer.show(canvas, result.canvas);
      say(`${note} ${canvas.width}×${canvas.height} → ${restored.width}×${restored.height} in `
        + `${seconds} s on ${target.title}.`);
    } catch (error) {
      engine?.opened.close();
      engine = undefined;
      show({ result: Boolean(result) });
      say(error.message === "cancelled" ? "Cancelled." : error.message, error.message !== "cancelled");
    } finally {
      running = false;
    }
  }

  for (const id of ["choose", "photograph"]) {
    at(id).onchange = () => {
      if (at(id).files.length) restore(at(id).files[0]);
      at(id).value = ""; // so that the same file can be chosen again
    };
  }
  takeDrops(at("drop"), restore);
  at("cancel").onclick = () => engine?.opened.close();
  at("fit").onclick = () => viewer.fit();
  at("pixels").onclick = () => viewer.pixels();
  at("download").onclick = () => download(result.canvas, result.name);
  listLacking(bundle.files.filter((one) => one.lacks));
}

/** LiteRT before ONNX Runtime, int8 before floats unless it loses visibly. */
function rank({ runtime, precision, loss }) {
  const best = precision === "int8" && (loss ?? 0) <= 1 ? 0 : precision === "float32" ? 1 : 2;
  return (runtime === "litert" ? 0 : 10) + best;
}

function fill(select, list, title) {
  select.replaceChildren(...list.map((one, index) => new Option(title(one), index)));
}

function show({ working = false, result = false }) {
  at("work").hidden = !working;
  at("result").hidden = !result;
  at("progress").value = 0;
  at("tiles").textContent = "";
}

function say(text, bad = false) {
  at("said").textContent = text.trim();
  at("said").classList.toggle("bad", bad);
}

function takeDrops(place, take) {
  const over = (event, inside) => {
    event.preventDefault();
    place.classList.toggle("over", inside);
  };
  // Anywhere on the page, so that a picture dropped beside the frame does not replace the page.
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", (event) => {
    over(event, false);
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}

function listLacking(files) {
  at("lacking").hidden = files.length === 0;
  const items = files.map((one) => {
    const item = document.createElement("li");
    item.textContent = `${one.file} ${one.lacks}`;
    return item;
  });
  at("lacking").querySelector("ul").replaceChildren(...items);
}
