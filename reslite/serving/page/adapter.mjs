// The graphics adapter that WebGPU computes on.

// Drivers that compute on the CPU.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|warp/i;

/** Return what the adapter is called and whether it is a fallback in software. */
export async function describeAdapter() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this browser has no WebGPU adapter");
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const name = [vendor, architecture, device, description].filter(Boolean).join(" ");
  return { adapter: name || "unnamed", software: isFallbackAdapter || SOFTWARE.test(name) };
}
