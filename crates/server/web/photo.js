// A photograph to search with: made small enough for a slow network, shown, and cropped by dragging or by numbers.

import { byId, h } from "./dom.js";

/** Longest side that is sent; a model sees far less. */
const LONGEST = 1280;
/** Files of fewer bytes are sent as they are, if they are not too wide. */
const SMALL = 600_000;
/** Shortest side of a crop in pixels on the screen: less is a click. */
const LEAST = 8;

/** The file as it is to be sent, and its size in pixels if the browser can tell. */
export async function prepare(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    // Not for this browser; the server may know it, or will say what is wrong.
    return { blob: file, width: 0, height: 0 };
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  if (scale === 1 && file.size <= SMALL) return { blob: file, width, height };
  const canvas = h("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  return { blob: blob ?? file, width: canvas.width, height: canvas.height };
}

/** Shows the photograph and lets the user crop it; `onCrop` gets a box in its pixels, or null for all of it. */
export class Stage {
  constructor(onCrop) {
    this.onCrop = onCrop;
    this.place = byId("stage");
    this.numbers = byId("crop-numbers");
    this.fields = ["Left", "Top", "Width", "Height"].map((name) =>
      h("input", { type: "number", min: 0, max: 100, step: 1, name, onchange: () => this.fromNumbers() }));
    this.numbers.querySelector(".numbers").append(...this.fields.map((field) =>
      h("label", {}, `${field.name} in %`, field)));
    this.place.addEventListener("pointerdown", (event) => this.begin(event));
    byId("uncrop").addEventListener("click", () => { this.crop(null); this.onCrop(null); });
  }

  /** Shows a photograph that can be cropped. */
  show(photo) {
    this.release();
    this.photo = photo;
    this.address = URL.createObjectURL(photo.blob);
    this.fill(this.address, "The photo to search with", Boolean(photo.width));
  }

  /** Shows the picture of an item, which is searched with as a whole. */
  showItem(address, name) {
    this.release();
    this.fill(address, `The item to search with: ${name}`, false);
  }

  fill(address, alt, croppable) {
    const image = h("img", { src: address, alt, draggable: false });
    image.addEventListener("error", () => { this.place.hidden = true; });
    this.place.replaceChildren(image);
    this.place.classList.toggle("item", !croppable);
    this.croppable = croppable;
    this.place.hidden = false;
    for (const part of [byId("crop-hint"), this.numbers]) part.hidden = !croppable;
    this.crop(null);
  }

  clear() {
    this.release();
    for (const part of [this.place, byId("crop-hint"), this.numbers, byId("uncrop")]) part.hidden = true;
    this.place.replaceChildren();
  }

  release() {
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
    this.photo = null;
    this.croppable = false;
  }

  begin(event) {
    if (!this.croppable || event.button > 0) return;
    event.preventDefault();
    const frame = this.place.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    const point = (e) => [within((e.clientX - frame.left) / frame.width), within((e.clientY - frame.top) / frame.height)];
    const start = point(event);
    this.place.setPointerCapture(event.pointerId);
    const part = (e) => {
      const [x, y] = point(e);
      const [left, top] = [Math.min(x, start[0]), Math.min(y, start[1])];
      return { left, top, width: Math.abs(x - start[0]), height: Math.abs(y - start[1]) };
    };
    const move = (e) => this.crop(part(e));
    const end = (e) => {
      this.place.removeEventListener("pointermove", move);
      this.place.removeEventListener("pointerup", end);
      this.place.removeEventListener("pointercancel", end);
      const drawn = part(e);
      const isClick = drawn.width * frame.width < LEAST || drawn.height * frame.height < LEAST;
      const had = this.part;
      this.crop(isClick ? null : drawn);
      if (!isClick || had) this.onCrop(this.box());
    };
    this.place.addEventListener("pointermove", move);
    this.place.addEventListener("pointerup", end);
    this.place.addEventListener("pointercancel", end);
  }

  fromNumbers() {
    const [left, top, width, height] = this.fields.map((field) => Math.min(100, Math.max(0, Number(field.value) || 0)) / 100);
    const part = { left, top, width: Math.min(width, 1 - left), height: Math.min(height, 1 - top) };
    this.crop(part.width > 0 && part.height > 0 ? part : null);
    this.onCrop(this.box());
  }

  /** Draws a part, given in shares of the whole. */
  crop(part) {
    this.part = part;
    this.place.querySelector(".crop")?.remove();
    byId("uncrop").hidden = !part;
    const shown = part ?? { left: 0, top: 0, width: 1, height: 1 };
    [shown.left, shown.top, shown.width, shown.height].forEach((value, i) => { this.fields[i].value = Math.round(value * 100); });
    if (!part) return;
    const frame = h("div", { class: "crop" });
    for (const side of ["left", "top", "width", "height"]) frame.style[side] = `${part[side] * 100}%`;
    this.place.append(frame);
  }

  /** The part in pixels of the photograph. */
  box() {
    if (!this.part || !this.photo) return null;
    const { width, height } = this.photo;
    const x = Math.min(width - 1, Math.floor(this.part.left * width));
    const y = Math.min(height - 1, Math.floor(this.part.top * height));
    return { x, y, width: Math.max(1, Math.round(this.part.width * width)), height: Math.max(1, Math.round(this.part.height * height)) };
  }
}
