// A network in a worker of its own, so that the page stays alive while it computes.

export class Engine {
  #worker = new Worker("worker.js");
  #waiting = new Map();
  #last = 0;
  #ended = ""; // why, once it has: a worker that has ended answers nothing

  constructor() {
    this.#worker.onmessage = ({ data: { id, done, ...rest } }) => {
      const waiting = this.#waiting.get(id);
      if (!waiting) return;
      if (!done) return waiting.told(rest.progress);
      this.#waiting.delete(id);
      if ("error" in rest) waiting.reject(new Error(rest.error));
      else waiting.resolve(rest.result);
    };
    this.#worker.onerror = (event) => this.#end(event.message || "the worker failed");
  }

  /** Open a file on a target; returns what the target says of itself. */
  async open(bundle, file, target) {
    const reply = await fetch(`files/${file.file}`);
    if (!reply.ok) throw new Error((await reply.text()).trim());
    const model = new Uint8Array(await reply.arrayBuffer());
    const { folder } = bundle.runtimes[target.runtime];
    try {
      return await this.#ask("open", { file, target, folder, model }, [model.buffer]);
    } catch (error) {
      throw new Error(`${target.title} does not open ${file.file}: ${error.message}`);
    }
  }

  /** Restore a canvas' pixels; `told` hears of each tile, and of how many. */
  restore(image, told) {
    return this.#ask("restore", { image }, [image.data.buffer], told);
  }

  /** Compare what the file makes of the golden picture with what it must. */
  check(golden, told) {
    return this.#ask("check", { golden }, [], told);
  }

  /** Return the milliseconds of some inferences of one window. */
  time(count) {
    return this.#ask("time", { count }, []);
  }

  /** End the worker, whatever it does. */
  close(reason = "cancelled") {
    this.#worker.terminate();
    this.#end(reason);
  }

  #ask(job, given, transferred, told = () => {}) {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(new Error(this.#ended));
      this.#waiting.set(id, { resolve, reject, told });
      this.#worker.postMessage({ id, job, given }, transferred);
    });
  }

  #end(reason) {
    this.#ended ||= reason;
    for (const { reject } of this.#waiting.values()) reject(new Error(reason));
    this.#waiting.clear();
  }
}
