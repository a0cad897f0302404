// A picture before and after, side by side along a line that moves; zoomed and moved by fingers,
// mouse or wheel.

const REACH = 24; // CSS pixels around the line in which it is dragged

export class Viewer {
  #canvas;
  #slider;
  #before;
  #after;
  #view = { zoom: 1, x: 0, y: 0 }; // device pixels of one pixel of `after`, and of its corner
  #pointers = new Map();
  #dragsLine = false;

  /** `slider` is the range input that moves the line, for keyboards. */
  constructor(canvas, slider) {
    this.#canvas = canvas;
    this.#slider = slider;
    slider.addEventListener("input", () => this.#draw());
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  /** Show two canvases or bitmaps; `before` is enlarged to the size of `after`. */
  show(before, after) {
    [this.#before, this.#after] = [before, after];
    this.#canvas.style.aspectRatio = `${after.width} / ${after.height}`;
    this.#resize();
    this.fit();
  }

  /** Show the whole picture. */
  fit() {
    if (!this.#after) return;
    const { width, height } = this.#canvas;
    const zoom = Math.min(width / this.#after.width, height / this.#after.height);
    this.#center(zoom);
  }

  /** Show each pixel as one of the screen, around the middle. */
  pixels() {
    if (this.#after) this.#center(1);
  }

  #center(zoom) {
    const { width, height } = this.#canvas;
    const x = (width - zoom * this.#after.width) / 2;
    const y = (height - zoom * this.#after.height) / 2;
    this.#view = { zoom, x, y };
    this.#draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.#canvas;
    const ratio = globalThis.devicePixelRatio || 1;
    const [width, height] = [clientWidth, clientHeight].map((side) => Math.round(side * ratio));
    if (!width || (this.#canvas.width === width && this.#canvas.height === height)) return;
    Object.assign(this.#canvas, { width, height });
    this.fit();
  }

  #draw() {
    if (!this.#after) return;
    const context = this.#canvas.getContext("2d");
    const { width, height } = this.#canvas;
    const { zoom, x, y } = this.#view;
    const line = Math.round(this.#slider.value * width);
    const place = [x, y, zoom * this.#after.width, zoom * this.#after.height];
    context.clearRect(0, 0, width, height);
    for (const [picture, from, to] of [[this.#before, 0, line], [this.#after, line, width]]) {
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, height);
      context.clip();
      context.imageSmoothingEnabled = picture === this.#before || zoom < 2;
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, ...place);
      context.restore();
    }
    this.#drawLine(context, line, height);
  }

  #drawLine(context, line, height) {
    const ratio = globalThis.devicePixelRatio || 1;
    context.fillStyle = "#fff";
    context.strokeStyle = "#0009";
    context.lineWidth = ratio;
    context.fillRect(line - ratio, 0, 2 * ratio, height);
    context.beginPath();
    context.arc(line, height / 2, 10 * ratio, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }

  #at({ clientX, clientY }) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    const ratio = globalThis.devicePixelRatio || 1;
    return { x: (clientX - left) * ratio, y: (clientY - top) * ratio };
  }

  #press(event) {
    this.#canvas.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    const line = this.#slider.value * this.#canvas.width;
    const near = Math.abs(at.x - line) < REACH * (globalThis.devicePixelRatio || 1);
    this.#dragsLine = near && this.#pointers.size === 0;
    this.#pointers.set(event.pointerId, at);
  }

  #move(event) {
    const from = this.#pointers.get(event.pointerId);
    if (!from) return;
    const to = this.#at(event);
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId);
    this.#pointers.set(event.pointerId, to);
    if (this.#dragsLine) {
      this.#slider.value = to.x / this.#canvas.width;
    } else if (others.length) {
      const [[, other]] = others;
      const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
      this.#zoom(apart(to) / Math.max(1, apart(from)), other);
    } else {
      this.#view.x += to.x - from.x;
      this.#view.y += to.y - from.y;
    }
    this.#draw();
  }

  #wheel(event) {
    if (!this.#after) return;
    event.preventDefault();
    this.#zoom(1.0015 ** -event.deltaY, this.#at(event));
    this.#draw();
  }

  #zoom(factor, around) {
    const zoom = Math.min(Math.max(this.#view.zoom * factor, 0.02), 32);
    const real = zoom / this.#view.zoom;
    this.#view = {
      zoom,
      x: around.x - real * (around.x - this.#view.x),
      y: around.y - real * (around.y - this.#view.y),
    };
  }
}
