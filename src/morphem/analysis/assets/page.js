// What joins the instruments: players, copying, the state that is chosen.
function player(root) {
  const slider = root.querySelector("input"), button = root.querySelector("button");
  const images = root.querySelectorAll("img"), places = root.querySelectorAll(".z");
  let timer = 0, step = 1;
  const show = () => {
    for (const list of [images, places]) list.forEach((item, i) => { item.hidden = i + 1 !== Number(slider.value); });
    root.querySelector(".number").textContent = slider.value;
  };
  const advance = () => {
    const next = Number(slider.value) + step;
    if (next < 1 || next > images.length) step = -step;
    slider.value = Number(slider.value) + step;
    show();
  };
  button.onclick = () => {
    timer = timer ? clearInterval(timer) : setInterval(advance, 140);
    button.textContent = timer ? "Pause" : "Play";
  };
  slider.oninput = show;
  slider.onkeydown = (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    button.click();
  };
}

async function copy(button) {
  const text = button.parentElement.querySelector("pre");
  getSelection().selectAllChildren(text);
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

const data = JSON.parse(document.getElementById("data").textContent);
const turnTo = surfaceViewer(document.getElementById("surface"), data.blocks, data.look);
const planes = document.getElementById("planes"), panel = document.getElementById("chosen");
if (planes) {
  const choose = (state) => {
    const card = document.getElementById(`state-${state}`).cloneNode(true);
    card.removeAttribute("id");
    panel.replaceChildren(card);
    mark(state);
  };
  const mark = planeViewer(planes, data.planes, data.look, data.colours, choose);
  choose(1);
}
document.querySelectorAll(".player").forEach(player);
document.addEventListener("click", (event) => {
  const { turn, copy: copied } = event.target.dataset;
  if (turn) {
    turnTo(turn);
    document.getElementById("surface").scrollIntoView({ block: "center" });
  }
  if (copied !== undefined) copy(event.target);
});
