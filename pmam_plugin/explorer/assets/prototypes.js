// The explorer of prototypes: a map of the Gaussians, the sounds they stand for, the labels they go with.

const state = { iteration: report.iterations.length - 1, map: 0, look: "sounds", chosen: 0, heat: "share" };
let shown, order, tiles, audio;

const nameOf = (k) => (shown.telling[k] < 0 ? "" : spaced(shown.labels[shown.telling[k]]));
const isNone = (label) => label === shown.labels.length - 1 || label < 0;
const tintOf = (label) => (isNone(label) ? "var(--faint)" : colour(label));
const shareOf = (k, label) => shown.joint[k][label] / Math.max(1e-12, sum(shown.joint[k]));
const tellingShare = (k) => (shown.telling[k] < 0 ? 0 : shareOf(k, shown.telling[k]));
const purityOf = (k) => Math.max(...shown.joint[k]) / Math.max(1e-12, sum(shown.joint[k]));
/** Divergence of a prototype's labels from those of all frames: what seeing it tells about the label, in bits. */
function bitsOf(k) {
  const all = shown.labels.map((_, label) => sum(shown.joint.map((row) => row[label])));
  const total = Math.max(1e-12, sum(all));
  return sum(shown.labels.map((_, label) => {
    const share = shareOf(k, label);
    return share > 0 ? share * Math.log2((share * total) / all[label]) : 0;
  }));
}
const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;

// ---- sound: all excerpts of an iteration are one file ----

function stopExcerpt() {
  if (!audio) return;
  audio.pause();
  for (const tile of document.querySelectorAll(".excerpt.on")) tile.classList.remove("on");
}

function playExcerpt(excerpt, element) {
  if (!shown.sprite) return;
  const same = element.classList.contains("on") && !audio.paused;
  stopExcerpt();
  if (same) return;
  load(audio, shown.sprite);
  const begin = excerpt.index * shown.excerpt_stride;
  const line = element.querySelector(".progress");
  element.classList.add("on");
  alone(audio);
  const start = () => {
    audio.currentTime = begin;
    audio.play().catch(() => element.classList.remove("on"));
    const follow = () => {
      if (!element.classList.contains("on")) return;
      const done = (audio.currentTime - begin) / shown.excerpt_seconds;
      if (done >= 1 || (audio.ended && done > 0)) return stopExcerpt();
      line.style.left = `${clamp(done, 0, 1) * 100}%`;
      requestAnimationFrame(follow);
    };
    follow();
  };
  if (audio.readyState > 0) start();
  else audio.addEventListener("loadedmetadata", start, { once: true });
}

function excerptTile(k, excerpt, place) {
  const [width, height] = shown.atlas.tile;
  const canvas = make("canvas", { width, height, "aria-hidden": "true" });
  const strip = make("canvas", { class: "posterior", width: 100, height: 1, "aria-hidden": "true" });
  const element = make("button", {
    type: "button", class: "excerpt", "data-prototype": k, "data-index": excerpt.index,
    "aria-label": `Play ${excerpt.clip} at ${clock(excerpt.seconds)}, ${excerpt.labels.map(spaced).join(", ") || "no label"}`,
    onclick: (event) => { event.stopPropagation(); playExcerpt(excerpt, element); },
    onpointermove: (event) => event.pointerType !== "touch" && tip(event.clientX, event.clientY, [`${excerpt.clip}, ${clock(excerpt.seconds, 2)}`, excerpt.labels.map(spaced).join(", ") || "no label"]),
    onpointerleave: hideTip,
  }, canvas, strip, make("i", { class: "progress" }));
  const paint = () => tiles && canvas.getContext("2d").drawImage(tiles, place * width, k * height, width, height, 0, 0, width, height);
  element.paint = paint;
  paint();
  const values = bytesOf(excerpt.posterior);
  const context = strip.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  for (let x = 0; x < 100 && values.length; x++) {
    context.globalAlpha = values[Math.min(values.length - 1, Math.floor((x / 100) * values.length))] / 255;
    context.fillRect(x, 0, 1, 1);
  }
  return element;
}

// ---- map ----

/** Density of the mixture in the plane as an image: many soft steps, darkest where frames are. */
function densityImage(plane, weights, box, columns = 220) {
  const rows = Math.max(20, Math.round((columns * (box.y[1] - box.y[0])) / (box.x[1] - box.x[0])));
  const values = new Float64Array(columns * rows);
  plane.covariances.forEach(([[a, b], [, d]], k) => {
    const det = a * d - b * b;
    if (!(det > 0)) return;
    const [mx, my] = plane.means[k];
    const scale = weights[k] / (2 * Math.PI * Math.sqrt(det));
    for (let j = 0; j < rows; j++) {
      const y = box.y[1] - ((j + 0.5) / rows) * (box.y[1] - box.y[0]) - my;
      for (let i = 0; i < columns; i++) {
        const x = box.x[0] + ((i + 0.5) / columns) * (box.x[1] - box.x[0]) - mx;
        values[j * columns + i] += scale * Math.exp(-0.5 * (d * x * x - 2 * b * x * y + a * y * y) / det);
      }
    }
  });
  const top = values.reduce((most, value) => Math.max(most, value), 1e-300);
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const [r, g, b] = isDark() ? [120, 160, 220] : [40, 80, 150];
  values.forEach((value, i) => {
    const level = Math.sqrt(value / top);
    image.data.set([r, g, b, Math.round(level * (isDark() ? 105 : 80))], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

/** What part of the plane to show: all of it, or without a few light prototypes far out if that enlarges the rest. */
function mapBox(plane, weights, width, height) {
  const reach = plane.means.map(([x, y], k) => {
    const [[a], [, d]] = plane.covariances ? plane.covariances[k] : [[0, 0], [0, 0]];
    return [x - Math.sqrt(a), x + Math.sqrt(a), y - Math.sqrt(d), y + Math.sqrt(d)];
  });
  const around = (kept) => {
    const low = (i) => Math.min(...kept.map((k) => reach[k][i]));
    const high = (i) => Math.max(...kept.map((k) => reach[k][i]));
    const [cx, cy] = [(low(0) + high(1)) / 2, (low(2) + high(3)) / 2];
    // One scale for both axes: a circle stays a circle.
    const unit = Math.max((high(1) - low(0)) / (width - 90), (high(3) - low(2)) / (height - 70)) || 1;
    return { x: [cx - (unit * width) / 2, cx + (unit * width) / 2], y: [cy - (unit * height) / 2, cy + (unit * height) / 2], unit };
  };
  const all = [...plane.means.keys()];
  let kept = all;
  let dropped = 0;
  for (;;) {
    const smallest = kept.map((k) => [around(kept.filter((other) => other !== k)).unit, k]).sort((a, b) => a[0] - b[0])[0];
    dropped += weights[smallest[1]] / sum(weights);
    if (dropped > 0.05 || kept.length < 4) break;
    kept = kept.filter((k) => k !== smallest[1]);
  }
  const [whole, part] = [around(all), around(kept)];
  if (part.unit > 0.8 * whole.unit) return { ...whole, beyond: 0 };
  const inside = ([x, y]) => x > part.x[0] && x < part.x[1] && y > part.y[0] && y < part.y[1];
  return { ...part, beyond: plane.means.filter((mean) => !inside(mean)).length };
}

function ellipsePath([mx, my], [[a, b], [, d]], sx, sy) {
  const middle = (a + d) / 2;
  const offset = Math.hypot((a - d) / 2, b);
  const [major, minor] = [Math.sqrt(Math.max(0, middle + offset)), Math.sqrt(Math.max(0, middle - offset))];
  const angle = 0.5 * Math.atan2(2 * b, a - d);
  const points = Array.from({ length: 49 }, (_, i) => {
    const t = (2 * Math.PI * i) / 48;
    const [u, v] = [major * Math.cos(t), minor * Math.sin(t)];
    return `${sx(mx + u * Math.cos(angle) - v * Math.sin(angle)).toFixed(1)} ${sy(my + u * Math.sin(angle) + v * Math.cos(angle)).toFixed(1)}`;
  });
  return `M${points.join("L")}Z`;
}

/** Move discs that hide each other apart, each as near to its own place as it can be. */
function spreadOut(places, radii, width, height) {
  const moved = places.map((place) => [...place]);
  for (let round = 0; round < 300; round++) {
    const pull = 0.06 * (1 - round / 300);
    moved.forEach((place, k) => {
      place[0] += (places[k][0] - place[0]) * pull;
      place[1] += (places[k][1] - place[1]) * pull;
    });
    for (let i = 0; i < moved.length; i++) {
      for (let j = i + 1; j < moved.length; j++) {
        const [dx, dy] = [moved[j][0] - moved[i][0] || 0.01 * (j - i), moved[j][1] - moved[i][1] || 0.01];
        const distance = Math.hypot(dx, dy);
        const overlap = radii[i] + radii[j] + 2.5 - distance;
        if (overlap <= 0) continue;
        const share = radii[j] ** 2 / (radii[i] ** 2 + radii[j] ** 2); // the smaller one gives way
        moved[i][0] -= (dx / distance) * overlap * share;
        moved[i][1] -= (dy / distance) * overlap * share;
        moved[j][0] += (dx / distance) * overlap * (1 - share);
        moved[j][1] += (dy / distance) * overlap * (1 - share);
      }
    }
    moved.forEach((place, k) => {
      place[0] = clamp(place[0], radii[k] + 2, width - radii[k] - 2);
      place[1] = clamp(place[1], radii[k] + 2, height - radii[k] - 2);
    });
  }
  return moved;
}

function drawMap() {
  const host = byId("map");
  const names = Object.keys(shown.maps);
  const plane = shown.maps[names[Math.min(state.map, names.length - 1)]];
  const width = Math.max(280, host.clientWidth);
  const height = Math.round(clamp(width * 0.78, 300, 560));
  const box = mapBox(plane, shown.weights, width, height);
  const sx = (x) => (x - box.x[0]) / box.unit;
  const sy = (y) => (box.y[1] - y) / box.unit;
  const picture = make("svg:svg", { class: "map", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Map of the prototypes" });
  if (plane.covariances) {
    picture.append(make("svg:image", { href: densityImage(plane, shown.weights, box), x: 0, y: 0, width, height, preserveAspectRatio: "none" }));
    plane.means.forEach((mean, k) => picture.append(make("svg:path", { class: "ellipse", "data-prototype": k, d: ellipsePath(mean, plane.covariances[k], sx, sy), stroke: tintOf(shown.telling[k]), fill: tintOf(shown.telling[k]) })));
  }
  const most = Math.max(...shown.weights);
  const sounds = state.look === "sounds" && shown.atlas;
  const shrink = Math.min(1, 0.4 + width / 1000);
  const size = (k) => Math.sqrt(shown.weights[k] / most);
  const radius = sounds ? (k) => clamp((12 + 20 * size(k)) * shrink, 11, 32) : (k) => clamp((4 + 15 * size(k)) * shrink, 5.5, 20);
  const means = plane.means.map(([x, y]) => [sx(x), sy(y)]);
  const places = spreadOut(means, means.map((_, k) => radius(k)), width, height);
  const taken = places.map(([x, y], k) => [x - radius(k), y - radius(k), x + radius(k), y + radius(k)]);
  means.forEach(([x, y], k) => {
    if (Math.hypot(x - places[k][0], y - places[k][1]) < 3) return;
    picture.append(make("svg:line", { class: "leader", x1: x, y1: y, x2: places[k][0], y2: places[k][1], stroke: tintOf(shown.telling[k]) }),
      make("svg:circle", { class: "mean", cx: x, cy: y, r: 2, fill: tintOf(shown.telling[k]) }));
  });
  const discs = [...plane.means.keys()].sort((a, b) => shown.weights[b] - shown.weights[a]);
  for (const k of discs) {
    const [x, y] = places[k];
    const disc = make("svg:g", {
      class: "disc", "data-prototype": k, tabindex: 0, role: "button", "data-keys": "own",
      "aria-label": `Prototype ${k}, weight ${percent(shown.weights[k], 1)}${nameOf(k) ? `, ${nameOf(k)}` : ""}`,
      onclick: () => choose(k, true),
      onkeydown: (event) => mapKey(event, k),
      onpointermove: (event) => event.pointerType !== "touch" && tip(event.clientX, event.clientY, describe(k)),
      onpointerleave: hideTip,
    }, make("svg:circle", { cx: x, cy: y, r: radius(k), fill: tintOf(shown.telling[k]), "fill-opacity": sounds ? 1 : (0.35 + 0.6 * Math.min(1, 1.5 * tellingShare(k))).toFixed(2) }));
    if (sounds) bubble(disc, k, x, y, radius(k) - 3);
    else disc.append(make("svg:text", { class: "number", x, y: y + 3.6, "text-anchor": "middle", "font-size": radius(k) < 9 ? 8 : 10.5 }, String(k)));
    picture.append(disc);
  }
  // Names go where there is room, heaviest prototypes first.
  for (const k of discs) {
    if (isNone(shown.telling[k])) continue;
    const [x, y] = places[k];
    const text = nameOf(k);
    const wide = text.length * 6.1 + 4;
    const [r, h] = [radius(k), 13];
    const spots = [[x + r + 4, y + 4, "start"], [x - r - 4, y + 4, "end"], [x, y - r - 5, "middle"], [x, y + r + 13, "middle"]];
    for (const [tx, ty, anchor] of spots) {
      const left = anchor === "start" ? tx : anchor === "end" ? tx - wide : tx - wide / 2;
      const area = [left, ty - h + 2, left + wide, ty + 3];
      const free = left > 2 && left + wide < width - 2 && area[1] > 2 && area[3] < height - 2
        && taken.every((other) => area[0] > other[2] || area[2] < other[0] || area[1] > other[3] || area[3] < other[1]);
      if (!free) continue;
      taken.push(area);
      picture.append(make("svg:text", { class: "name", x: tx, y: ty, "text-anchor": anchor, "font-size": 11.5, fill: tintOf(shown.telling[k]) }, text));
      break;
    }
  }
  host.replaceChildren(picture);
  const beyond = box.beyond ? ` ${counted(box.beyond, "light prototype")} at the border ${box.beyond === 1 ? "lies" : "lie"} beyond it.` : "";
  byId("map-caption").textContent = (plane.covariances
    ? `Gaussians in the plane that shows ${percent(plane.explained)} of the scatter of their means; ellipses at one standard deviation, shading: density of all frames under the mixture.`
    : `Cluster means in the plane that shows ${percent(plane.explained)} of their scatter.`) + beyond;
  markChosen();
}

/** The middle of a prototype's most typical excerpt in a circle, its number below. */
function bubble(disc, k, x, y, r) {
  const [width, height] = shown.atlas.tile;
  if (tiles && shown.excerpts[k].length) {
    const canvas = make("canvas", { width: height, height });
    canvas.getContext("2d").drawImage(tiles, (width - height) / 2, k * height, height, height, 0, 0, height, height);
    disc.append(make("svg:clipPath", { id: `clip-${k}` }, make("svg:circle", { cx: x, cy: y, r })),
      make("svg:image", { href: canvas.toDataURL(), x: x - r, y: y - r, width: 2 * r, height: 2 * r, preserveAspectRatio: "none", "clip-path": `url(#clip-${k})` }));
  }
  disc.append(make("svg:text", { class: "number", x, y: y + r - 1, "text-anchor": "middle", "font-size": r < 12 ? 8 : 10 }, String(k)));
}

const describe = (k) => [
  `prototype ${k}`,
  [tintOf(shown.telling[k]), "weight", percent(shown.weights[k], 1)],
  ...topLabels(k).slice(0, 3).map(([label, share]) => [tintOf(label), spaced(shown.labels[label]), percent(share)]),
];

function topLabels(k) {
  if (!shown.labelled) return [];
  return shown.joint[k].map((_, label) => [label, shareOf(k, label)]).filter((pair) => pair[1] > 0.005).sort((a, b) => b[1] - a[1]);
}

function mapKey(event, k) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Enter" || event.key === " ") choose(k, true);
  else if (step) {
    const next = order[(order.indexOf(k) + step + order.length) % order.length];
    choose(next, false);
    document.querySelector(`.disc[data-prototype="${next}"]`).focus();
  } else return;
  event.preventDefault();
}

function markChosen() {
  for (const element of document.querySelectorAll("[data-prototype]")) {
    element.classList.toggle("chosen", Number(element.dataset.prototype) === state.chosen && !element.classList.contains("excerpt"));
  }
}

/** One line about the prototypes, for the picture that leaves the page. */
function caption() {
  const facts = [`${shown.weights.length} prototypes, ${shown.name}`];
  if (shown.labelled) facts.push(`normalised mutual information with labels ${shown.scores.nmi.toFixed(2)}`, `purity ${percent(shown.scores.purity)}`);
  return [...facts, "pmam_plugin"].join(" · ");
}

/** The map as SVG text of its own: styles and colours written into the elements, a caption below. */
function standalone() {
  const source = document.querySelector("#map svg");
  for (const element of source.querySelectorAll(".chosen")) element.classList.remove("chosen"); // of use on the page only
  const copy = source.cloneNode(true);
  const [from, to] = [[...source.querySelectorAll("*")], [...copy.querySelectorAll("*")]];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "font-family", "font-size", "font-weight", "paint-order", "opacity"]) {
      to[i].removeAttribute(name);
      to[i].style.setProperty(name, style.getPropertyValue(name));
    }
  });
  markChosen();
  const style = getComputedStyle(document.body);
  const [width, height] = [source.clientWidth, source.clientHeight + 28];
  copy.insertBefore(make("svg:rect", { width, height, fill: style.backgroundColor }), copy.firstChild);
  copy.append(make("svg:text", { x: 10, y: height - 10, fill: style.color, "font-size": 12, "font-family": style.fontFamily, opacity: 0.75 }, caption()));
  for (const [name, value] of Object.entries({ xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}` })) copy.setAttribute(name, value);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

function download(blob, ending) {
  const link = make("a", { href: URL.createObjectURL(blob), download: `prototypes-${spaced(shown.name).replaceAll(" ", "-")}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const saveVector = () => download(new Blob([standalone().text], { type: "image/svg+xml" }), "svg");

/** The map as pixels, three for each of the screen's: enough for a slide. */
async function savePixels() {
  const { text, width, height } = standalone();
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = make("canvas", { width: 3 * width, height: 3 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => download(blob, "png"), "image/png");
}

// ---- the chosen prototype ----

function choose(k, sound) {
  state.chosen = k;
  markChosen();
  drawChosen();
  if (sound) {
    const first = document.querySelector("#chosen .excerpt");
    if (first) playExcerpt(shown.excerpts[k][0], first);
  }
}

function drawChosen() {
  const k = state.chosen;
  const host = byId("chosen");
  const bars = make("div", { class: "label-bars" });
  const spectrum = make("div", { class: "spectrum" });
  const labels = topLabels(k).slice(0, 5);
  bars.append(...labels.map(([label, share]) => make("div", { class: "label-bar" },
    make("span", {}, spaced(shown.labels[label])),
    make("div", { class: "bar-track" }, make("div", { class: "bar-fill", style: `width:${share * 100}%;background:${tintOf(label)}` })),
    make("b", {}, percent(share)))));
  host.replaceChildren(
    make("h3", { class: "chosen-title" }, make("i", { class: "badge", style: `background:${tintOf(shown.telling[k])}` }, String(k)), nameOf(k) || `Prototype ${k}`),
    make("p", { class: "stage-facts" },
      make("span", {}, "weight ", make("b", {}, percent(shown.weights[k], 1))),
      make("span", {}, "lasts ", make("b", {}, `${figure(shown.durations[k], 2)} s`)),
      make("span", {}, "in ", make("b", {}, percent(shown.clip_shares[k])), " of clips"),
      shown.labelled ? make("span", { title: "Share of its frames with its most frequent label" }, "purity ", make("b", {}, percent(purityOf(k)))) : null,
      shown.labelled ? make("span", { title: "How much hearing it tells about the label" }, "tells ", make("b", {}, `${bitsOf(k).toFixed(2)} bits`)) : null),
    make("div", { class: "excerpts" }, shown.excerpts[k].map((excerpt, place) => excerptTile(k, excerpt, place))),
    shown.labelled ? make("h4", {}, "Labels of its frames") : null, bars,
    make("h4", {}, "Mean spectrum"), spectrum);
  drawSpectrum(spectrum, k);
}

function drawSpectrum(host, k) {
  const bands = shown.spectra[k].length;
  const mel = (hertz) => Math.log10(1 + hertz / 700) / Math.log10(1 + 8000 / 700);
  const average = shown.spectra[0].map((_, band) => sum(shown.spectra.map((row, i) => row[band] * shown.weights[i])) / sum(shown.weights));
  const [width, height] = [Math.max(200, host.clientWidth), 140];
  const x = (band) => ((band + 0.5) / bands) * width;
  const y = (value) => 4 + (1 - value) * (height - 24);
  const path = (row) => row.map((value, band) => `${band ? "L" : "M"}${x(band).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  host.replaceChildren(make("svg:svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Mean spectrum of prototype ${k} and of all` },
    [500, 1000, 2000, 4000].map((hertz) => [
      make("svg:line", { class: "grid", x1: mel(hertz) * width, x2: mel(hertz) * width, y1: 0, y2: height - 18 }),
      make("svg:text", { x: mel(hertz) * width, y: height - 4, "text-anchor": "middle" }, hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`)]).flat(),
    make("svg:path", { d: `${path(shown.spectra[k])}L${x(bands - 1)} ${height - 18}L${x(0)} ${height - 18}Z`, fill: tintOf(shown.telling[k]), opacity: 0.18 }),
    make("svg:path", { class: "series", d: path(average), stroke: "var(--faint)", "stroke-dasharray": "4 3" }),
    make("svg:path", { class: "series", d: path(shown.spectra[k]), stroke: tintOf(shown.telling[k]) })));
  host.append(make("p", { class: "chart-legend" }, "dashed: all prototypes; 50 dB from bottom to top"));
}

// ---- wall, tiles, heat map, histograms ----

function drawWall() {
  byId("wall-cards").replaceChildren(...order.map((k) => make("div", {
    class: "wall-card", "data-prototype": k, style: `--c:${tintOf(shown.telling[k])}`,
    onclick: () => { choose(k, false); document.querySelector(innerWidth > 900 ? ".explorer" : "#chosen").scrollIntoView({ block: "start" }); },
  },
  make("div", { class: "wall-head" }, make("b", {}, String(k)), make("span", {}, nameOf(k)), make("small", {}, percent(shown.weights[k], 1))),
  make("div", { class: "excerpts" }, shown.excerpts[k].slice(0, 4).map((excerpt, place) => excerptTile(k, excerpt, place))))));
}

function drawAgreement() {
  const { scores } = shown;
  const before = report.iterations[state.iteration - 1];
  const was = (text) => (before ? `; ${before.name}: ${text(before)}` : "");
  const tile = (what, value, range) => make("div", { class: "tile" }, make("div", { class: "what" }, what), make("div", { class: "figure" }, value), make("div", { class: "range" }, range));
  byId("agreement").replaceChildren(...[
    shown.labelled && tile("normalised mutual information", scores.nmi.toFixed(3), `in frames with events ${scores.nmi_events.toFixed(3)}${was((it) => it.scores.nmi.toFixed(3))}`),
    shown.labelled && tile("purity", percent(scores.purity, 1), `largest label alone ${percent(scores.largest_label, 1)}${was((it) => percent(it.scores.purity, 1))}`),
    tile("prototypes in use", `${shown.active} of ${shown.weights.length}`, `heaviest ${percent(Math.max(...shown.weights), 1)}`),
    tile("posterior entropy", `${shown.mean_entropy.toFixed(3)} nats`, `${percent(shown.mean_entropy / shown.most_entropy, 1)} of ln ${shown.weights.length}${was((it) => it.mean_entropy.toFixed(3))}`),
  ].filter(Boolean));
}

function drawHeat() {
  const host = byId("heat");
  if (!shown.labelled) return host.replaceChildren(make("p", { class: "lead" }, "No frame of this run has a strong label."));
  const total = sum(shown.joint.map(sum));
  const overall = shown.labels.map((_, label) => sum(shown.joint.map((row) => row[label])) / total);
  const rows = [...shown.labels.keys()].filter((label) => overall[label] > 0);
  const left = Math.max(...rows.map((label) => shown.labels[label].length)) * 7 + 16;
  const bottom = 26;
  const wide = Math.max(20, Math.floor((Math.max(320, host.parentElement.clientWidth) - left - 4) / order.length));
  const high = 24;
  const [width, height] = [left + wide * order.length + 2, rows.length * high + bottom];
  const picture = make("svg:svg", { class: "chart heat", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Prototypes against labels" });
  picture.style.maxWidth = "none";
  rows.forEach((label, j) => {
    picture.append(make("svg:text", { class: "row-name", x: left - 8, y: j * high + high / 2 + 4, "text-anchor": "end", fill: tintOf(label) }, spaced(shown.labels[label])));
    order.forEach((k, i) => {
      const share = shareOf(k, label);
      const lift = share / overall[label];
      const bits = clamp(Math.log2(Math.max(lift, 1e-3)) / 4, -1, 1);
      const [fill, opacity] = state.heat === "share" ? [tintOf(label), Math.sqrt(share)] : [bits >= 0 ? "var(--c0)" : "var(--c1)", Math.abs(bits)];
      picture.append(make("svg:rect", {
        class: "cell", x: left + i * wide, y: j * high, width: wide - 1, height: high - 1, fill, "fill-opacity": opacity.toFixed(3), "data-k": k, "data-label": label,
        onpointermove: (event) => tip(event.clientX, event.clientY, [`prototype ${k}`, [tintOf(label), spaced(shown.labels[label]), percent(share, 1)], ["transparent", "than by chance", `${figure(lift, 2)} ×`]]),
        onpointerleave: hideTip, onclick: () => choose(k, false),
      }));
    });
  });
  order.forEach((k, i) => picture.append(make("svg:text", { x: left + i * wide + wide / 2, y: height - 8, "text-anchor": "middle" }, String(k))));
  host.replaceChildren(picture);
}

function drawShapes() {
  const byWeight = [...shown.weights.keys()].sort((a, b) => shown.weights[b] - shown.weights[a]);
  const [weights, entropy] = [make("div"), make("div")];
  byId("weights").replaceChildren(weights);
  byId("entropy").replaceChildren(entropy);
  columns(weights, {
    values: byWeight.map((k) => shown.weights[k]), tints: byWeight.map((k) => tintOf(shown.telling[k])), tips: byWeight.map(describe), xLabel: "prototypes, by weight", yLabel: "weight",
    height: 200, label: "Weights of the prototypes, largest first", onpick: (i) => choose(byWeight[i], false),
  });
  const frames = Math.max(1, sum(shown.entropies));
  const step = shown.most_entropy / shown.entropies.length;
  columns(entropy, {
    values: shown.entropies.map((count) => count / frames), tints: "var(--c0)", x: [0, shown.most_entropy], xLabel: `nats; ln ${shown.weights.length} = ${shown.most_entropy.toFixed(2)}`, yLabel: "share of frames",
    tips: shown.entropies.map((count, i) => [`${(i * step).toFixed(2)} – ${((i + 1) * step).toFixed(2)} nats`, ["var(--c0)", "frames", percent(count / frames, 1)]]),
    marks: [{ value: shown.mean_entropy, text: `mean ${shown.mean_entropy.toFixed(2)}` }], height: 200, label: "Histogram of posterior entropies",
  });
}

function drawLegend() {
  const seen = [...new Set(shown.telling)].filter((label) => label >= 0).sort((a, b) => a - b);
  byId("map-legend").replaceChildren(legendOf(seen.map((label) => ({ name: spaced(shown.labels[label]), tint: tintOf(label) }))));
}

async function showIteration(index) {
  stopExcerpt();
  state.iteration = index;
  shown = report.iterations[index];
  if (audio && audio.src) URL.revokeObjectURL(audio.src);
  audio?.remove();
  audio = make("audio", { preload: "auto" });
  document.body.append(audio);
  order = [...shown.weights.keys()].sort((a, b) => (shown.telling[a] - shown.telling[b]) || tellingShare(b) - tellingShare(a));
  state.chosen = [...shown.weights.keys()].filter((k) => !isNone(shown.telling[k])).sort((a, b) => tellingShare(b) - tellingShare(a))[0] ?? order[0];
  for (const button of document.querySelectorAll("[data-iteration]")) button.setAttribute("aria-pressed", String(Number(button.dataset.iteration) === index));
  byId("map-choice").replaceChildren(...Object.keys(shown.maps).map((name, i) => make("button", {
    type: "button", "aria-pressed": String(i === state.map),
    onclick: (event) => { state.map = i; for (const other of event.target.parentElement.children) other.setAttribute("aria-pressed", String(other === event.target)); drawMap(); },
  }, name)));
  tiles = null;
  drawEverything();
  if (shown.atlas) {
    shown.grey ??= await greyImage(shown.atlas.png);
    paintTiles();
  }
}

function paintTiles() {
  if (!shown.grey) return;
  tiles = coloured(shown.grey);
  for (const tile of document.querySelectorAll(".excerpt")) tile.paint();
  if (state.look === "sounds") drawMap();
}

function drawEverything() {
  drawMap();
  drawLegend();
  drawChosen();
  drawAgreement();
  drawWall();
  drawHeat();
  drawShapes();
}

byId("save-map").addEventListener("click", saveVector);
byId("save-pixels").addEventListener("click", savePixels);
for (const button of document.querySelectorAll("[data-look]")) {
  button.addEventListener("click", () => {
    state.look = button.dataset.look;
    for (const other of document.querySelectorAll("[data-look]")) other.setAttribute("aria-pressed", String(other === button));
    drawMap();
  });
}
byId("heat-mode").addEventListener("change", (event) => { state.heat = event.target.value; drawHeat(); });
for (const button of document.querySelectorAll("[data-iteration]")) button.addEventListener("click", () => showIteration(Number(button.dataset.iteration)));
document.addEventListener("themechange", () => { if (shown) { drawEverything(); paintTiles(); } });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") stopExcerpt(); });
showIteration(state.iteration);
let lastWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === lastWidth) return;
  lastWidth = innerWidth;
  drawMap();
  drawChosen();
  drawHeat();
});
