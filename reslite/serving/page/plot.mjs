// Horizontal bars to the median of some values, and a dot for each.
import { median } from "./measurement.mjs";

const NAMES = "http://www.w3.org/2000/svg";
const [WIDTH, ROW, BAR] = [400, 38, 12];

/** Draw rows { title, values } in milliseconds into an element. */
export function drawPlot(place, rows) {
  if (!rows.length) return place.replaceChildren();
  const largest = Math.max(...rows.flatMap((one) => one.values));
  const x = (value) => (0.8 * WIDTH * value) / largest;
  const height = rows.length * ROW;
  const title = "Median milliseconds of an inference";
  const svg = made("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title });
  rows.forEach(({ title, values }, index) => {
    const top = index * ROW + 18;
    const middle = median(values);
    svg.append(
      made("text", { x: 0, y: top - 5, "font-size": 10 }, title),
      made("rect", { class: "bar", x: 0, y: top, width: x(middle), height: BAR }),
      ...values.map((one) => made("circle", { cx: x(one), cy: top + BAR / 2, r: 2.5 })),
      made("text", { class: "quiet", x: x(Math.max(...values)) + 6, y: top + 10 }, `${middle.toFixed(1)} ms`),
    );
  });
  place.replaceChildren(svg);
}

function made(name, attributes, text = "") {
  const element = document.createElementNS(NAMES, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
