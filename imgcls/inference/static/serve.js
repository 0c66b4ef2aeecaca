// The page of `imgcls serve`: sends images to /predict one after another, and shows the answers. All text from files and
// from the server is set as text, never as HTML.
const settings = props.settings;
const note = element.querySelector(".note");
const drop = element.querySelector(".drop");
const input = drop.querySelector("input");
const shown = []; // of each image: its answer, and the list that shows it
let waiting = Promise.resolve();
let left = 0;
let common = null; // one threshold for all classes in place of the model's

element.querySelector("h1").textContent = settings.heading;
note.textContent = settings.note;

const create = (name, parent, text = "", kind = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  parent.append(made);
  return made;
};

function fill({ answer, list }) {
  list.replaceChildren();
  answer.classes.forEach((label, i) => {
    const probability = answer.probabilities[i];
    // Probabilities and the model's thresholds are float32; the common one is rounded likewise, as in /predict.
    const threshold = answer.thresholds && (common === null ? answer.thresholds[i] : Math.fround(common));
    const above = threshold !== null && probability > threshold;
    if (i >= settings.rows && !above) return;
    const row = create("li", list, "", above || (threshold === null && i === 0) ? "above" : "");
    const name = create("bdi", row, label);
    name.dir = "auto";
    name.title = label;
    const bar = create("span", row, "", "bar");
    create("span", bar).style.width = `${100 * probability}%`;
    if (threshold !== null) create("i", bar).style.left = `${100 * threshold}%`;
    create("output", row, probability.toFixed(3));
  });
}

async function ask(file) {
  if (file.size > settings.max_bytes) return { error: settings.too_large }; // not sent in vain
  const form = new FormData();
  form.append("topk", settings.topk);
  form.append("cam", settings.cam ? "1" : "0");
  form.append("image", file, file.name);
  try {
    return await (await fetch("./predict", { method: "POST", body: form })).json();
  } catch {
    return { error: "no answer from the server; is it still running?" };
  }
}

async function show(file) {
  const answer = await ask(file);
  const card = document.createElement("figure");
  create("figcaption", card, file.name);
  if (answer.error) {
    create("p", card, answer.error, "error");
  } else {
    const images = create("div", card, "", "images");
    const original = create("img", images);
    original.alt = file.name;
    original.onload = original.onerror = (event) => {
      URL.revokeObjectURL(original.src);
      if (event.type === "error") original.remove(); // a format that the browser does not know
    };
    original.src = URL.createObjectURL(file);
    if (answer.heat_map) {
      const heat = create("img", images);
      heat.alt = `what speaks for ${answer.classes[0]}`;
      heat.src = answer.heat_map;
    }
    const entry = { answer, list: create("ol", card) };
    shown.push(entry);
    fill(entry);
  }
  document.querySelector("#imgcls-answers .answers").prepend(card);
  left -= 1;
  note.textContent = left ? `${left} more` : settings.note;
}

function add(files) {
  for (const file of files) {
    left += 1;
    waiting = waiting.then(() => show(file));
  }
}

window.imgclsThreshold = (value) => {
  common = value;
  shown.forEach(fill);
};
input.addEventListener("change", () => {
  add([...input.files]);
  input.value = ""; // so that the same file can be chosen again
});
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type === "drop") add([...event.dataTransfer.files]);
  });
}
