// What every report shares: elements, theme, colours, numbers, tooltips.

const report = JSON.parse(document.getElementById("report-data").textContent);
const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes, then children (strings become text). Functions are event listeners ("onclick"). */
function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Colour number `index` of the palette, as CSS: stays right when the theme changes. */
const colour = (index) => `var(--c${((index % 10) + 10) % 10})`;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function clock(seconds, digits = 1) {
  const whole = Math.max(0, seconds);
  const rest = whole % 60;
  const head = whole >= 3600 ? `${Math.floor(whole / 3600)}:${String(Math.floor(whole / 60) % 60).padStart(2, "0")}` : `${Math.floor(whole / 60)}`;
  return `${head}:${rest.toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

function figure(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const spaced = (label) => label.replaceAll("_", " ");

/** Round steps between low and high, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** The same for clock times: steps people count in. */
function timeTicks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const step = steps.find((candidate) => candidate >= raw) || 3600;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) found.push(k * step);
  return { times: found, digits: step < 1 ? 1 : 0 };
}

// ---- theme -------------------------------------------------------------------------------------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";

function remembered(value) {
  try {
    if (value !== undefined) localStorage.setItem("pmam-theme", value);
    return localStorage.getItem("pmam-theme");
  } catch {
    return null; // pages opened from a disk may have no storage
  }
}

function showTheme() {
  byId("theme").textContent = isDark() ? "☀ Light" : "☾ Dark";
  document.dispatchEvent(new Event("themechange"));
}

if (remembered()) document.documentElement.dataset.theme = remembered();
prefersDark.addEventListener("change", showTheme);
byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  remembered(document.documentElement.dataset.theme);
  showTheme();
});
showTheme();

// ---- spectrogram colours -------------------------------------------------------------------------------------------
// Loudness runs along lightness in both themes, so the picture survives grey print and every kind of colour vision.

const RAMPS = {
  light: ["#ffffff", "#eef2f9", "#cfdff0", "#9fc0e2", "#6b98cf", "#4a6db8", "#3f4398", "#33216e", "#170b33"],
  dark: ["#0a0d16", "#151638", "#35185f", "#661c76", "#9c2b75", "#d04a60", "#f07f4f", "#fbbd68", "#fdf5cf"],
};

function ramp(stops) {
  const table = new Uint8ClampedArray(256 * 3);
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (rgb.length - 1);
    const low = Math.min(rgb.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c++) table[level * 3 + c] = rgb[low][c] + (place - low) * (rgb[low + 1][c] - rgb[low][c]);
  }
  return table;
}

const rampNow = () => ramp(RAMPS[isDark() ? "dark" : "light"]);

/** Decode a grey PNG (base64); resolves to {width, height, levels}. */
async function greyImage(base64) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const canvas = make("canvas", { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height).data;
  const levels = new Uint8Array(image.width * image.height);
  for (let i = 0; i < levels.length; i++) levels[i] = pixels[4 * i];
  return { width: image.width, height: image.height, levels };
}

/** A canvas of grey levels in the colours of the present theme. */
function coloured({ width, height, levels }) {
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const table = rampNow();
  for (let i = 0; i < levels.length; i++) {
    image.data[4 * i] = table[3 * levels[i]];
    image.data[4 * i + 1] = table[3 * levels[i] + 1];
    image.data[4 * i + 2] = table[3 * levels[i] + 2];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Make a canvas as many device pixels as it is wide on screen; returns its context and size in CSS pixels. */
function sharpened(canvas) {
  const box = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [Math.max(1, Math.round(box.width * scale)), Math.max(1, Math.round(box.height * scale))];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.imageSmoothingQuality = "high";
  return { context, width: box.width, height: box.height };
}

/** Call back whenever an element changes its width (and once at first). */
function onResize(element, callback) {
  let width = -1;
  new ResizeObserver(() => {
    if (Math.abs(element.clientWidth - width) < 1) return;
    width = element.clientWidth;
    if (width > 0) requestAnimationFrame(callback);
  }).observe(element);
}

// ---- tooltip -----------------------------------------------------------------------------------------------------

const tooltip = make("div", { class: "tooltip", role: "status", hidden: true });
document.body.append(tooltip);

/** Show lines at a place of the window; each line is a string or [colour, name, value]. */
function tip(x, y, lines) {
  tooltip.replaceChildren(
    ...lines.map((line) =>
      typeof line === "string"
        ? make("div", { class: "tip-title" }, line)
        : make("div", {}, make("i", { style: `background:${line[0]}` }), make("span", {}, line[1]), make("b", {}, line[2]))
    )
  );
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const left = x + 16 + box.width > innerWidth ? x - box.width - 16 : x + 16;
  tooltip.style.left = `${clamp(left, 4, Math.max(4, innerWidth - box.width - 4))}px`;
  tooltip.style.top = `${clamp(y - box.height - 8, 4, innerHeight - box.height - 4)}px`;
}

const hideTip = () => (tooltip.hidden = true);

// ---- sound -------------------------------------------------------------------------------------------------------

/** Give an <audio> element its sound; embedded sound becomes a blob, in which browsers can seek. */
function load(audio, sound) {
  if (audio.hasAttribute("src") || !sound) return;
  audio.src = sound.href || URL.createObjectURL(new Blob([bytesOf(sound.base64)], { type: sound.mime }));
}

/** Only one thing plays at a time. */
let sounding = null;
function alone(audio) {
  if (sounding && sounding !== audio) sounding.pause();
  sounding = audio;
}
