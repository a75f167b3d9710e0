// Images on a plane, counted in cells: drawn once as a picture, then moved and stretched.
function planeViewer(root, planes, look, colours, choose) {
  const canvas = root.querySelector("canvas"), output = root.querySelector("output");
  const reading = output.textContent, frame = { left: 46, right: 8, top: 8, bottom: 36 };
  const ready = [];
  let plane = null, by = "images", view = [], chosen = 0;

  const inner = () => [canvas.clientWidth - frame.left - frame.right, canvas.clientHeight - frame.top - frame.bottom];
  const toScreen = (x, y) => {
    const [width, height] = inner();
    const [across, up] = [(x - view[0]) / (view[2] - view[0]), (view[3] - y) / (view[3] - view[1])];
    return [frame.left + width * across, frame.top + height * up];
  };
  const toPlane = (right, down) => {
    const [width, height] = inner();
    const [across, up] = [(right - frame.left) / width, (down - frame.top) / height];
    return [view[0] + (view[2] - view[0]) * across, view[3] - (view[3] - view[1]) * up];
  };
  const cellAt = ([x, y]) => {
    const [x0, y0, x1, y1] = plane.frame, { side } = plane;
    const [column, row] = [Math.floor(side * (x - x0) / (x1 - x0)), Math.floor(side * (y - y0) / (y1 - y0))];
    return column >= 0 && row >= 0 && column < side && row < side ? row * side + column : -1;
  };
  const draw = () => {
    if (!plane) return;
    const [context, ratio] = sharp(canvas), [width, height] = inner(), [x0, y0, x1, y1] = plane.frame;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    context.save();
    context.beginPath();
    context.rect(frame.left, frame.top, width, height);
    context.clip();
    context.imageSmoothingEnabled = false;
    const [left, top] = toScreen(x0, y1), [right, bottom] = toScreen(x1, y0);
    context.drawImage(plane.picture[by], left, top, right - left, bottom - top);
    const numbers = [...plane.centres.keys()].sort((a, b) => (a + 1 === chosen) - (b + 1 === chosen));
    for (const k of numbers) drawNumber(context, ...toScreen(...plane.centres[k]), k + 1, k + 1 === chosen);
    context.restore();
    drawAxes(context, frame, width, height, view, plane.axes);
  };
  const move = (x0, y0, x1, y1) => { view = [x0, y0, x1, y1]; draw(); };
  const reset = () => move(...plane.frame);
  const select = async (i) => {
    plane = ready[i] ??= await prepared(planes[i], look.ramp, colours);
    press("plane", i);
    reset();
  };
  const press = (group, value) => root.querySelectorAll(`[data-${group}]`).forEach((button) => {
    button.setAttribute("aria-pressed", button.dataset[group] === String(value));
  });
  const nearest = (right, down) => {
    const away = plane.centres.map((at) => toScreen(...at)).map(([x, y]) => Math.hypot(x - right, y - down));
    const best = away.indexOf(Math.min(...away));
    return away[best] < 14 ? best + 1 : 0;
  };
  gestures(canvas, {
    drag: (right, down) => {
      const [width, height] = inner();
      const x = right / width * (view[2] - view[0]), y = down / height * (view[3] - view[1]);
      move(view[0] - x, view[1] + y, view[2] - x, view[3] + y);
    },
    zoom: (factor, right, down) => {
      const [x, y] = toPlane(right, down);
      move(...view.map((edge, i) => (i % 2 ? y : x) + (edge - (i % 2 ? y : x)) / factor));
    },
    reset,
    click: (right, down) => {
      const state = nearest(right, down) || plane.labels[cellAt(toPlane(right, down))];
      if (state) choose(state);
    },
    hover: (right, down) => {
      const at = toPlane(right, down), cell = cellAt(at), images = cell < 0 ? 0 : plane.images[cell];
      const where = `(${at.map((value) => value.toFixed(2)).join(", ")})`;
      const told = images ? `, most of cluster ${plane.labels[cell]}` : "";
      output.textContent = `${where}: ${images.toLocaleString("en")} image${images === 1 ? "" : "s"}${told}`;
    },
  });
  canvas.onpointerleave = () => { output.textContent = reading; };
  root.querySelectorAll("[data-plane]").forEach((button) => { button.onclick = () => select(button.dataset.plane); });
  root.querySelectorAll("[data-colour]").forEach((button) => {
    button.onclick = () => { by = button.dataset.colour; press("colour", by); draw(); };
  });
  root.querySelector("[data-do=reset]").onclick = reset;
  new ResizeObserver(draw).observe(canvas);
  press("colour", by);
  select(0);
  return (state) => { chosen = state; draw(); };
}

// A plane with its arrays unpacked and painted.
async function prepared(plane, ramp, colours) {
  const images = await unpacked(plane.images, Uint32Array), labels = await unpacked(plane.labels, Uint16Array);
  const painted = (colourOf) => cellPicture(plane.side, images, colourOf);
  const labelColour = (cell) => colours[labels[cell] - 1];
  const picture = { images: painted(densityColour(images, ramp)), labels: painted(labelColour) };
  return { ...plane, images, labels, picture };
}

// The cells as a picture, one pixel each, the first row at the bottom.
function cellPicture(side, images, colourOf) {
  const canvas = new OffscreenCanvas(side, side), context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  for (let cell = 0; cell < images.length; cell++) {
    if (!images[cell]) continue;
    const row = side - 1 - Math.floor(cell / side);
    image.data.set([...colourOf(cell), 255], 4 * (row * side + cell % side));
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// By the logarithm of how many images there are.
function densityColour(images, ramp) {
  const most = Math.log(images.reduce((a, b) => Math.max(a, b), 2));
  return (cell) => ramp[Math.round((ramp.length - 1) * Math.log(images[cell]) / most)];
}

function drawNumber(context, x, y, number, chosen) {
  context.beginPath();
  context.arc(x, y, 9, 0, 7);
  context.fillStyle = chosen ? "#22303c" : "white";
  context.fill();
  context.strokeStyle = "#22303c";
  context.stroke();
  context.fillStyle = chosen ? "white" : "#22303c";
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(number, x, y + 0.5);
}

function drawAxes(context, frame, width, height, [x0, y0, x1, y1], [name, upName]) {
  const bottom = frame.top + height;
  context.strokeStyle = context.fillStyle = "#4a5560";
  context.font = "11px system-ui, sans-serif";
  context.strokeRect(frame.left, frame.top, width, height);
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of ticks(x0, x1)) context.fillText(tick, frame.left + width * (tick - x0) / (x1 - x0), bottom + 5);
  context.fillText(name, frame.left + width / 2, bottom + 20);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(y0, y1)) context.fillText(tick, frame.left - 5, bottom - height * (tick - y0) / (y1 - y0));
  context.save();
  context.translate(9, frame.top + height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(upName, 0, 0);
  context.restore();
}

// About five round numbers between two.
function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((round) => round * power >= rough);
  const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}
