// The surface of a cube of bytes at a level: one vertex in every cell that it crosses (surface nets, S. Gibson, 1998).
// Points are (x, y, z) about the middle, the cube's half side being 1; faces are triangles of vertex numbers.
function surfaceNet(cube, side, level) {
  const step = [1, side, side * side];
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((c) => (c & 1) + (c >> 1 & 1) * step[1] + (c >> 2) * step[2]);
  const vertexOf = new Int32Array(side ** 3).fill(-1), points = [], faces = [];
  for (let z = 0, cell = 0; z < side; z++) for (let y = 0; y < side; y++) for (let x = 0; x < side; x++, cell++) {
    if (x === side - 1 || y === side - 1 || z === side - 1) continue;
    const middle = crossing(cube, cell, corners, level);
    if (!middle) continue;
    vertexOf[cell] = points.length / 3;
    points.push(...[x + middle[0], y + middle[1], z + middle[2]].map((at) => 2 * at / (side - 1) - 1));
  }
  for (let i = step[2] + step[1] + 1; i < cube.length; i++) {
    for (let axis = 0; axis < 3; axis++) {
      const inside = cube[i] > level;
      if (i + step[axis] >= cube.length || inside === cube[i + step[axis]] > level) continue;
      const [b, c] = [step[(axis + 1) % 3], step[(axis + 2) % 3]];
      const [p, q, r, s] = [i, i - b, i - b - c, i - c].map((at) => vertexOf[at]);
      faces.push(...(inside ? [p, q, r, p, r, s] : [p, r, q, p, s, r]));
    }
  }
  return { points: new Float32Array(points), faces: new Uint32Array(faces), normals: normals(points, faces) };
}

// The mean of where the surface crosses a cell's twelve edges, in the cell, or nothing.
function crossing(cube, cell, corners, level) {
  let crossed = 0;
  const sum = [0, 0, 0];
  for (let c = 0; c < 8; c++) for (let axis = 0; axis < 3; axis++) {
    if (c >> axis & 1) continue;
    const here = cube[cell + corners[c]], there = cube[cell + corners[c | 1 << axis]];
    if (here > level === there > level) continue;
    crossed++;
    for (let a = 0; a < 3; a++) sum[a] += a === axis ? (level - here) / (there - here) : c >> a & 1;
  }
  return crossed && sum.map((total) => total / crossed);
}

// How far from the middle a point lies.
function furthest(points) {
  let most = 1e-6;
  for (let at = 0; at < points.length; at += 3) most = Math.max(most, Math.hypot(...points.subarray(at, at + 3)));
  return most;
}

// At every vertex the mean of its triangles' normals, each as long as its triangle is large.
function normals(points, faces) {
  const sum = new Float32Array(points.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [p, q, r] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const [ux, uy, uz] = [0, 1, 2].map((a) => points[q + a] - points[p + a]);
    const [vx, vy, vz] = [0, 1, 2].map((a) => points[r + a] - points[p + a]);
    const normal = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
    for (const vertex of [p, q, r]) for (let a = 0; a < 3; a++) sum[vertex + a] += normal[a];
  }
  return sum;
}

// A mesh as seen: turned by a matrix, lit, every pixel its nearest triangle's. No graphics card is needed.
function drawSurface(context, side, mesh, turn, size, colour, look) {
  const image = context.createImageData(side, side), pixels = new Uint32Array(image.data.buffer);
  const depth = new Float32Array(side * side).fill(-9), bright = new Float32Array(side * side);
  const seen = project(mesh, turn, side, size, look);
  for (let f = 0; f < mesh.faces.length; f += 3) {
    fill(seen, mesh.faces[f], mesh.faces[f + 1], mesh.faces[f + 2], side, depth, bright);
  }
  const pale = colour.map((part) => 255 * (0.35 + 0.65 * part / 255));
  for (let i = 0; i < pixels.length; i++) {
    if (depth[i] < -8) { pixels[i] = 0xffffffff; continue; }
    const edge = Math.max(depth[i - 1], depth[i + 1], depth[i - side], depth[i + side]) - depth[i] > 0.1 ? 0.6 : 1;
    const light = 1.2 * edge * bright[i] * (0.85 + 0.15 * depth[i]);
    const [r, g, b] = pale.map((part) => Math.min(255, light * part));
    pixels[i] = 255 << 24 | b << 16 | g << 8 | r;
  }
  context.putImageData(image, 0, 0);
}

// Every vertex as (right, down, towards the viewer, brightness): Lambert's cosine above what is everywhere.
function project(mesh, turn, side, size, { light, ambient }) {
  const { points, normals } = mesh, seen = new Float32Array(points.length / 3 * 4);
  const turned = (v, at, row) => turn[row] * v[at] + turn[row + 1] * v[at + 1] + turn[row + 2] * v[at + 2];
  for (let at = 0, to = 0; at < points.length; at += 3, to += 4) {
    const [nx, ny, nz] = [0, 3, 6].map((row) => turned(normals, at, row));
    const cosine = (nx * light[0] + ny * light[1] + nz * light[2]) / (Math.hypot(nx, ny, nz) || 1);
    seen[to] = side / 2 * (1 + size * turned(points, at, 0));
    seen[to + 1] = side / 2 * (1 - size * turned(points, at, 3));
    seen[to + 2] = turned(points, at, 6);
    seen[to + 3] = ambient + (1 - ambient) * Math.max(0, cosine);
  }
  return seen;
}

// One triangle, where it is nearer than what is drawn already; one that is seen from behind is not.
function fill(seen, p, q, r, side, depth, bright) {
  p *= 4; q *= 4; r *= 4;
  const [px, py, qx, qy, rx, ry] = [seen[p], seen[p + 1], seen[q], seen[q + 1], seen[r], seen[r + 1]];
  const area = (qx - px) * (ry - py) - (qy - py) * (rx - px);
  if (area >= 0) return;
  const left = Math.max(0, Math.ceil(Math.min(px, qx, rx))), right = Math.min(side - 1, Math.max(px, qx, rx));
  const top = Math.max(0, Math.ceil(Math.min(py, qy, ry))), bottom = Math.min(side - 1, Math.max(py, qy, ry));
  for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
    const ofQ = ((x - px) * (ry - py) - (y - py) * (rx - px)) / area;
    const ofR = ((qx - px) * (y - py) - (qy - py) * (x - px)) / area;
    if (ofQ < 0 || ofR < 0 || ofQ + ofR > 1) continue;
    const near = seen[p + 2] + ofQ * (seen[q + 2] - seen[p + 2]) + ofR * (seen[r + 2] - seen[p + 2]);
    if (near <= depth[y * side + x]) continue;
    depth[y * side + x] = near;
    bright[y * side + x] = seen[p + 3] + ofQ * (seen[q + 3] - seen[p + 3]) + ofR * (seen[r + 3] - seen[p + 3]);
  }
}

// The instrument: a choice of maps, a level, a view. `show(i)` turns to map i.
function surfaceViewer(root, blocks, look) {
  const [canvas, choice, level] = ["canvas", "select", "input"].map((name) => root.querySelector(name));
  const cubes = new Map(), front = [1, 0, 0, 0, 1, 0, 0, 0, 1];
  let turn = front, size = 1, fit = 0, mesh = null, waiting = 0;
  blocks.forEach((block, i) => choice.add(new Option(block.title, i)));
  const draw = () => {
    waiting = waiting || requestAnimationFrame(() => {
      waiting = 0;
      const [context] = sharp(canvas);
      if (mesh) drawSurface(context, canvas.width, mesh, turn, size * fit, blocks[choice.value].colour, look);
    });
  };
  const about = (axis, angle) => {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const row = axis === "y" ? 0 : 3, next = [...turn];
    for (let i = 0; i < 3; i++) {
      next[row + i] = c * turn[row + i] + s * turn[6 + i];
      next[6 + i] = c * turn[6 + i] - s * turn[row + i];
    }
    turn = next;
  };
  const cut = async () => {
    const block = blocks[choice.value];
    if (!cubes.has(block)) cubes.set(block, await unpacked(block.bytes, Uint8Array));
    mesh = surfaceNet(cubes.get(block), block.side, level.value / block.step);
    fit ||= 0.95 / furthest(mesh.points);
    root.querySelector("output").textContent = Number(level.value).toPrecision(3);
    draw();
  };
  const show = (i) => {
    const { level: usual } = blocks[i];
    choice.value = i;
    [level.min, level.max, level.step, level.value] = [0.3 * usual, 2.5 * usual, usual / 100, usual];
    return cut();
  };
  let spinning = 0;
  const spin = root.querySelector("[data-do=spin]");
  spin.onclick = () => {
    spinning = spinning ? clearInterval(spinning) : setInterval(() => { about("y", 0.03); draw(); }, 40);
    spin.setAttribute("aria-pressed", Boolean(spinning));
  };
  const reset = () => { turn = front; size = 1; draw(); };
  root.querySelector("[data-do=reset]").onclick = reset;
  gestures(canvas, {
    drag: (right, down) => { about("y", right / 100); about("x", -down / 100); draw(); },
    zoom: (factor) => { size = Math.min(6, Math.max(0.3, size * factor)); draw(); },
    reset,
  });
  choice.onchange = () => show(choice.value);
  level.oninput = cut;
  new ResizeObserver(draw).observe(canvas);
  show(0);
  return show;
}
