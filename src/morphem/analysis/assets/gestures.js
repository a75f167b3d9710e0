// Pointers, the wheel and keys of a canvas, told as drags, zooms, clicks and readings, in its own CSS pixels.
// The wheel belongs to the page until the canvas has been clicked, and so do a finger's strokes up and down.
function gestures(canvas, { drag, zoom, reset, click = () => {}, hover = () => {} }) {
  const held = new Map();
  let travelled = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (!held.size) travelled = 0;
    held.set(event.pointerId, place(event));
  };
  canvas.onpointermove = (event) => {
    const now = place(event), before = held.get(event.pointerId);
    if (!before) return hover(...now);
    const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom(apart(now, other) / Math.max(apart(before, other), 1), ...other);
    else drag(now[0] - before[0], now[1] - before[1]);
    travelled += apart(now, before);
    held.set(event.pointerId, now);
  };
  canvas.onpointerup = (event) => {
    if (held.delete(event.pointerId) && travelled < 4) click(...place(event));
  };
  canvas.onpointercancel = (event) => held.delete(event.pointerId);
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 500), ...place(event));
  }, { passive: false });
  const middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
  const keys = {
    ArrowLeft: () => drag(-24, 0), ArrowRight: () => drag(24, 0),
    ArrowUp: () => drag(0, -24), ArrowDown: () => drag(0, 24),
    "+": () => zoom(1.2, ...middle()), "=": () => zoom(1.2, ...middle()), "-": () => zoom(1 / 1.2, ...middle()),
    0: reset,
  };
  canvas.onkeydown = (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  };
}

// What Python's `packed` wrote, as an array of numbers of a type.
async function unpacked(text, type) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new type(await new Response(stream).arrayBuffer());
}

// A canvas finer than most screens, so that edges are smooth; its context and its pixels per CSS pixel.
function sharp(canvas) {
  const ratio = 2;
  const side = Math.round(canvas.clientWidth * ratio);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  return [canvas.getContext("2d"), ratio];
}
