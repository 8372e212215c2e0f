"use strict";
// Selects among what the evaluation recorded, and draws it: nothing is computed here but places and colours.
(() => {
  const data = JSON.parse(document.getElementById("player-data").textContent);
  const get = (id) => document.getElementById(id);
  const SIDES = ["left", "right"];
  const OUTLINE = "#18c5ff", FADED = 0.45, OVERLAY = 0.75;

  const pictures = [...document.querySelectorAll(".pictures input")];
  const step = get("step"), map = get("map"), completed = get("completed");
  const rule = get("rule"), threshold = get("threshold");
  const shown = () => pictures.findIndex((input) => input.checked);
  const bytes = new Map();

  // The maps of an image under a method: a byte a cell, glimpse after glimpse.
  function levels(text) {
    if (!bytes.has(text)) bytes.set(text, Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
    return bytes.get(text);
  }

  // After how many glimpses the image stops at the chosen threshold; undefined where the method lacks the rule.
  function stop(image) {
    return rule ? image.stops[rule.value]?.[Number(threshold.value)] : undefined;
  }

  function draw(side) {
    const method = data.methods[get(`method-${side}`).value], number = shown(), image = method.images[number];
    const canvas = get(`canvas-${side}`), t = Number(step.value);
    const side_px = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    if (canvas.width !== side_px) canvas.width = canvas.height = side_px;
    const pen = canvas.getContext("2d"), scale = side_px / data.size, picture = pictures[number].nextElementSibling;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--fill");
    pen.fillRect(0, 0, side_px, side_px);
    pen.imageSmoothingEnabled = picture.naturalWidth > 100;
    pen.globalAlpha = FADED;
    pen.drawImage(picture, 0, 0, side_px, side_px);
    pen.globalAlpha = 1;
    if (!image) return;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const squares = image.squares.slice(0, t), withMap = map.checked && image.maps !== null;
    if (withMap) paint(pen, levels(image.maps), t, scale);
    const ratio = picture.naturalWidth / data.size;
    for (const [row, column, width] of withMap ? squares.slice(0, -1) : squares) {
      const from = [column * ratio, row * ratio, width * ratio, width * ratio];
      pen.drawImage(picture, ...from, column, row, width, width);
    }
    outline(pen, squares, stop(image) ?? t, scale);
  }

  function paint(pen, cells, t, scale) {
    // Whole pixels of the screen, or seams would show between cells.
    const edges = data.edges.map((edge) => Math.round(edge * scale) / scale);
    const count = edges.length - 1, first = (t - 1) * count * count;
    pen.globalAlpha = OVERLAY;
    for (let row = 0; row < count; row += 1) {
      for (let column = 0; column < count; column += 1) {
        const level = cells[first + row * count + column] / 255;
        pen.fillStyle = data.colours[Math.round(level * (data.colours.length - 1))];
        pen.fillRect(edges[column], edges[row], edges[column + 1] - edges[column], edges[row + 1] - edges[row]);
      }
    }
    pen.globalAlpha = 1;
  }

  // Squares, and a line through their middles from a ring to a dot. Glimpses after the stop are dashed.
  function outline(pen, squares, stopped, scale) {
    const middles = squares.map(([row, column, width]) => [column + width / 2, row + width / 2]);
    const ratio = window.devicePixelRatio || 1, thin = ratio / scale;
    pen.strokeStyle = pen.fillStyle = OUTLINE;
    squares.forEach(([row, column, width], number) => {
      const last = number === squares.length - 1;
      pen.setLineDash(number < stopped ? [] : [4 * thin, 3 * thin]);
      pen.lineWidth = (last ? 2.5 : 1.2) * thin;
      pen.strokeRect(column, row, width, width);
      if (number === 0) return;
      pen.lineWidth = 1.2 * thin;
      pen.beginPath();
      pen.moveTo(...middles[number - 1]);
      pen.lineTo(...middles[number]);
      pen.stroke();
    });
    pen.setLineDash([]);
    pen.beginPath();
    pen.arc(...middles[0], 5 * thin, 0, 2 * Math.PI);
    pen.stroke();
    pen.beginPath();
    pen.arc(...middles[middles.length - 1], 3 * thin, 0, 2 * Math.PI);
    pen.fill();
  }

  const percent = (share) => `${Math.round(100 * share)} %`;

  // Writes the answer beside the drawing, and returns it as a sentence.
  function describe(side) {
    const name = get(`method-${side}`).value, method = data.methods[name], image = method.images[shown()];
    const answer = get(`answer-${side}`), bars = get(`bars-${side}`), unit = get(`unit-${side}`);
    const t = Number(step.value), label = data.labels[shown()];
    bars.replaceChildren();
    answer.classList.remove("wrong");
    if (!image) {
      answer.textContent = "no sequence was designed for this image";
      unit.textContent = "";
      return `${method.title}: ${answer.textContent}.`;
    }
    const [[best, probability]] = image.steps[t - 1];
    answer.textContent = `${data.classes[best]}, ${percent(probability)}`;
    if (best !== label) answer.textContent += `: is ${data.classes[label]}`;
    answer.classList.toggle("wrong", best !== label);
    for (const [number, share] of image.steps[t - 1]) {
      const row = document.createElement("li"), text = document.createElement("span"), value = document.createElement("span");
      text.textContent = data.classes[number] + (number === label ? " (true)" : "");
      value.textContent = percent(share);
      row.style.setProperty("--share", `${100 * share}%`);
      row.classList.toggle("true", number === label);
      row.append(text, value);
      bars.append(row);
    }
    const after = stop(image), stops = after < image.steps.length ? `stops after glimpse ${after}` : "";
    const drawn = map.checked && image.maps ? `map: ${image.tops[t - 1]}` : "";
    unit.textContent = [stops, drawn].filter(Boolean).join("; ");
    const [row, column] = image.squares[t - 1];
    const place = `glimpse ${t} at row ${row}, column ${column}`;
    get(`canvas-${side}`).setAttribute("aria-label", `${method.title}: ${place}; answer ${answer.textContent}`);
    return `${method.title}: ${answer.textContent}, ${best === label ? "right" : "wrong"}.`;
  }

  function complete() {
    if (!completed) return;
    get("completions").hidden = !completed.checked;
    if (!completed.checked) return;
    const before = Number(step.value) - 1, of = data.completions[shown()]?.[before - 1] ?? [], list = get("completions-list");
    const glimpses = `${before} glimpse${before === 1 ? "" : "s"}`;
    get("completions-text").textContent = of.length
      ? `Images that agree with the first ${glimpses} of the designed sequence, heaviest first: glimpse ${before + 1} was designed with them.`
      : data.completions[shown()] && before === 0
        ? "Before glimpse 1 nothing was seen that a completion could agree with."
        : "No sequence was designed for this image, so it has no completions.";
    list.replaceChildren(...of.map(([source, weight], number) => {
      const item = document.createElement("li"), image = document.createElement("img");
      image.src = source;
      image.alt = `completion ${number + 1}`;
      item.append(image, `weight ${weight}`);
      return item;
    }));
  }

  function play({ aloud = true } = {}) {
    const t = step.value, text = `${t} of ${step.max}`;
    get("step-text").textContent = text;
    step.setAttribute("aria-valuetext", `glimpse ${text}`);
    SIDES.forEach(draw);
    const sentences = SIDES.map(describe);
    complete();
    if (aloud) get("said").textContent = `Glimpse ${text}. ${[...new Set(sentences)].join(" ")}`;
  }

  function move({ aloud = true } = {}) {
    const { settings, lines } = data.rules[rule.value], number = Number(threshold.value), block = get(`rule-${rule.value}`);
    get("threshold-text").textContent = block.querySelector(".setting").textContent = settings[number];
    threshold.setAttribute("aria-valuetext", settings[number]);
    const sentences = [];
    for (const row of block.querySelectorAll("tr[data-method]")) {
      const [x, y, ...figures] = lines[row.dataset.method][number];
      [...row.cells].slice(1).forEach((cell, place) => { cell.textContent = figures[place]; });
      const dot = block.querySelector(`circle[data-method="${row.dataset.method}"]`);
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", y);
      sentences.push(`${row.cells[0].textContent}: ${figures[0]} glimpses, ${figures[1]} multiply-adds, ${figures[2]}.`);
    }
    if (aloud) get("threshold-said").textContent = `Threshold ${settings[number]}. ${sentences.join(" ")}`;
    play({ aloud: false });
  }

  function choose(how) {
    for (const block of document.querySelectorAll(".rule")) block.hidden = block.id !== `rule-${rule.value}`;
    threshold.max = data.rules[rule.value].settings.length - 1;
    threshold.value = threshold.max;
    move(how);
  }

  document.documentElement.classList.add("plays");
  for (const input of pictures) input.addEventListener("change", () => play());
  for (const side of SIDES) get(`method-${side}`).addEventListener("change", () => play());
  for (const check of [map, completed].filter(Boolean)) check.addEventListener("change", () => play());
  step.addEventListener("input", () => play());
  threshold?.addEventListener("input", () => move());
  rule?.addEventListener("change", () => choose());
  new ResizeObserver(() => SIDES.forEach(draw)).observe(get("canvas-left"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => SIDES.forEach(draw));
  Promise.all(pictures.map((input) => input.nextElementSibling.decode())).then(() => (rule ? choose : play)({ aloud: false }));
})();
