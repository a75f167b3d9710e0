// What the tests ask of a page.
const BLOCKS = "h1, h2, h3, p, li, figure, figcaption, canvas, img, table, pre, dl, button, label, nav";

// Pairs of blocks that share ground though neither holds the other; a copy button may lie on its listing.
function overlapping() {
  const blocks = [...document.querySelectorAll(BLOCKS)].filter((item) => item.getClientRects().length);
  const name = (item) => `${item.tagName} ${item.textContent.slice(0, 30)}`;
  return blocks.flatMap((a, i) => blocks.slice(i + 1).filter((b) => {
    if (a.contains(b) || b.contains(a) || (a.parentElement === b.parentElement && a.matches(".listing *"))) return false;
    const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    return wide > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1;
  }).map((b) => `${name(a)} | ${name(b)}`));
}

// Blocks with more in them than they show.
function cutOff() {
  return [...document.querySelectorAll("p, h1, h2, h3, pre, dl, table, .card, .check, figure, button")]
    .filter((item) => item.scrollWidth > item.clientWidth + 1 && getComputedStyle(item).display !== "inline")
    .map((item) => `${item.tagName} ${item.textContent.slice(0, 40)}`);
}

// The share of an instrument's canvas that is not white, and a number that tells pictures apart; after the next frame.
async function pixels(instrument) {
  await new Promise((done) => setTimeout(done, 150));
  const canvas = document.querySelector(`${instrument} canvas`), { width, height } = canvas;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let drawn = 0, sum = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (!data[i + 3] || data[i] + data[i + 1] + data[i + 2] === 765) continue;
    drawn++;
    sum = (31 * sum + data[i] * (i + 1)) % 1000000007;
  }
  return [drawn / width / height, sum];
}

// Where an instrument's canvas lies in the window, brought into view.
function boxOf(instrument) {
  const canvas = document.querySelector(`${instrument} canvas`);
  canvas.scrollIntoView({ block: "center" });
  const { x, y, width, height } = canvas.getBoundingClientRect();
  return [x, y, width, height];
}

// Whether everything that is seen or used has a name.
function nameless() {
  const without = (selector, named) => [...document.querySelectorAll(selector)].filter((item) => !named(item));
  return [
    ...without("img, canvas", (item) => item.alt || item.ariaLabel),
    ...without("button", (item) => item.ariaLabel || item.textContent.trim()),
    ...without("input, select", (item) => item.ariaLabel || item.labels.length),
  ].map((item) => item.outerHTML.slice(0, 80));
}
