// The record of a measurement, as benchmarks/measurement.py describes it.

/** Return the median of some numbers. */
export function median(values) {
  return quantile(values, 0.5);
}

/** Return a quantile, interpolated between the two nearest values. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

/** Return the name of a new run: 32 hexadecimal digits. */
export function newRun() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
}

/**
 * Return the record of one start of a file on a target.
 *
 * `place` is { run, block, order, start, role }; `facts` is what the target says of itself; `check` what the
 * comparison of the output gave; `samples` are milliseconds, none if time does not count here.
 */
export function measurementOf(bundle, { file, target, facts, check, samples, place }) {
  const { package: name, version } = bundle.runtimes[target.runtime];
  const on = target.accelerator === "wasm" ? `wasm, ${target.threads} thread${target.threads > 1 ? "s" : ""}` : target.accelerator;
  return {
    ...place,
    file: file.file,
    sha256: file.sha256,
    format: file.format,
    precision: file.precision,
    network: bundle.model,
    scale: bundle.scale,
    size: file.window,
    device: target.device,
    machine: machineOf(facts),
    evidence: samples.length ? "measured" : "executed",
    runtime: `${name} ${version} (${on})`,
    when: new Date().toISOString().replace(/\.\d+Z$/, "+00:00"),
    unit: "ms",
    samples,
    threads: target.accelerator === "wasm" ? target.threads : null,
    load: null,
    multadds: file.multadds,
    versions: { [name]: version, browser: browserOf() },
    facts: {
      "user agent": navigator.userAgent.slice(0, 400),
      cores: navigator.hardwareConcurrency || 0,
      "software adapter": facts.software ? "yes" : "no",
      ...(facts.adapter ? { adapter: facts.adapter.slice(0, 200) } : {}),
      ...(navigator.deviceMemory ? { "memory GiB, at least": navigator.deviceMemory } : {}),
      check: checkOf(check),
    },
  };
}

/** Say what the comparison of a file's output gave. */
export function checkOf({ passed, largest, tolerance }) {
  const levels = `${largest} of 255 levels, ${tolerance} allowed`;
  return passed ? `agrees (${levels})` : `DIFFERS (${levels})`;
}

function machineOf(facts) {
  const system = navigator.userAgentData?.platform ?? /\(([^)]*)\)/.exec(navigator.userAgent)?.[1];
  const adapter = facts.adapter ? `, ${facts.adapter}` : "";
  const machine = `${system ?? "unknown"}, ${navigator.hardwareConcurrency || "?"} cores${adapter}`;
  return machine.slice(0, 400);
}

function browserOf() {
  const brands = navigator.userAgentData?.brands ?? [];
  const brand = brands.find((one) => !/not.?a/i.test(one.brand));
  return brand ? `${brand.brand} ${brand.version}` : navigator.userAgent.split(" ").pop();
}
