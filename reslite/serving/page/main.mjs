// Reads what the bundle holds and starts the parts of the page.
import { startMeasuring } from "./measuring.mjs";
import { startRestoring } from "./restoring.mjs";

async function main() {
  const reply = await fetch("bundle.json");
  if (!reply.ok) throw new Error((await reply.text()).trim());
  const bundle = await reply.json();
  const task = bundle.scale > 1 ? `enlarges ${bundle.scale} times` : "repairs pictures";
  document.title = `${bundle.model} · reslite`;
  document.getElementById("title").textContent = `${bundle.model} ×${bundle.scale}`;
  document.getElementById("subtitle").textContent = `${task}, in this browser`;
  startRestoring(bundle);
  startMeasuring(bundle);
  if (bundle.exported) await keepOffline();
}

/** Keep the page for times without a network, where the browser can. */
async function keepOffline() {
  const said = document.getElementById("offline");
  if (!navigator.serviceWorker) return;
  try {
    said.textContent = "keeping the page for offline use …";
    await navigator.serviceWorker.register("service-worker.js");
    await navigator.serviceWorker.ready;
    said.textContent = "opens offline, too";
    // Threads come with the worker's headers, from the next load on.
    if (!globalThis.crossOriginIsolated) said.textContent += "; faster once it is loaded again";
  } catch (error) {
    said.textContent = `opens online only: ${error.message}`;
  }
}

for (const button of document.querySelectorAll("nav button")) {
  button.onclick = () => {
    for (const one of document.querySelectorAll("nav button")) {
      one.setAttribute("aria-pressed", one === button);
      document.getElementById(one.dataset.part).hidden = one !== button;
    }
  };
}

main().catch((error) => {
  document.getElementById("subtitle").textContent = error.message;
  document.getElementById("subtitle").classList.add("bad");
});
