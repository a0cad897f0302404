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
