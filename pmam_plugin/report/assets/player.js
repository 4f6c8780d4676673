// The player: spectrogram, one lane per class, and a playhead that follows the sound.

const players = [];

/** Two decimals, or two figures of what would else be 0.0-something. */
const scoreText = (value) => (value >= 0.1 || value === 0 ? value.toFixed(2) : value.toPrecision(2));
let keyboardPlayer = null;

/** Events where a score curve lies above a threshold, as [onset, offset, highest score]. */
function runsAbove({ step, top, values }, threshold, duration) {
  const runs = [];
  let open = null;
  bytesOf(values).forEach((byte, i) => {
    const score = (byte / 255) * top;
    if (score <= threshold) { open = null; return; }
    if (!open) runs.push((open = [i * step, 0, score]));
    open[1] = Math.min(duration, (i + 1) * step);
    open[2] = Math.max(open[2], score);
  });
  return runs;
}

class Player {
  /** host: element to fill; recording: see recording.py; options.colours: label -> palette number. */
  constructor(host, recording, options = {}) {
    Object.assign(this, { host, recording, duration: recording.duration, view: [0, recording.duration], position: 0 });
    this.colourOf = options.colours || Object.fromEntries(recording.lanes.map((lane, i) => [lane.label, i]));
    this.everyLane = false;
    this.build();
    this.listen();
    players.push(this);
    if (!keyboardPlayer) keyboardPlayer = this;
    greyImage(recording.spectrogram.png).then((grey) => {
      this.grey = grey;
      this.paint();
    });
    if (options.eager) this.load();
  }

  // ---- structure ----

  build() {
    const { recording } = this;
    this.audio = make("audio", { preload: "auto" });
    this.playButton = make("button", { type: "button", class: "play", "aria-label": "Play", onclick: () => this.toggle() }, "▶");
    this.playButton.disabled = !recording.audio;
    this.time = make("output", { class: "time" });
    this.canvas = make("canvas", { class: "spectrogram", "aria-hidden": "true" });
    this.axis = make("div", { class: "axis", "aria-hidden": "true" });
    this.head = make("div", { class: "playhead", "data-testid": "playhead" });
    this.hover = make("div", { class: "hoverline", hidden: true });
    this.track = make("div", {
      class: "track", role: "slider", tabindex: 0, "aria-label": `Position in ${recording.name}`,
      "aria-valuemin": 0, "aria-valuemax": recording.duration.toFixed(2),
    }, this.hover, this.head);
    this.frequencies = make("div", { class: "gutter frequencies", "aria-hidden": "true" },
      recording.spectrogram.ticks.map(([text, place]) => make("span", { style: `bottom:${(place * 100).toFixed(2)}%` }, text)));
    this.lanes = make("div", { class: "lanes" });
    this.minimap = make("svg:svg", { class: "minimap", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.notice = make("p", { class: "notice", role: "status", hidden: !!recording.audio && !recording.audio.href },
      !recording.audio ? "The sound of this recording is not part of the page." : "This long recording plays from its own file; keep page and file where they are.");
    const zoom = (label, text, factor) => make("button", { type: "button", "aria-label": label, title: label, onclick: () => this.zoom(factor) }, text);
    this.allButton = make("button", { type: "button", class: "all-lanes", onclick: () => { this.everyLane = !this.everyLane; this.drawLanes(); } });
    this.element = make("div", { class: "player" },
      make("div", { class: "controls" }, this.playButton, this.time, make("span", { class: "name" }, recording.name),
        make("span", { class: "buttons" }, this.allButton, zoom("Zoom out", "−", 2), zoom("Zoom in", "+", 0.5),
          make("button", { type: "button", onclick: () => this.show(0, this.duration) }, "All"))),
      make("div", { class: "stage" },
        make("div", { class: "row axis-row" }, make("div", { class: "gutter" }), this.axis),
        make("div", { class: "row" }, this.frequencies, this.canvas),
        this.lanes, this.track),
      this.minimap, this.legend(), this.notice, this.audio);
    this.host.replaceChildren(this.element);
    this.drawLanes();
  }

  legend() {
    const item = (kind, text) => make("span", {}, make("i", { class: `key ${kind}` }), text);
    const parts = [item("curve", "score"), item("detected", "detected")];
    if (this.recording.lanes.some((lane) => lane.scores && lane.threshold !== null)) parts.splice(1, 0, item("threshold", "threshold"));
    if (this.recording.annotated) parts.push(item("truth", "annotated"));
    return make("p", { class: "legend" }, parts);
  }

  drawLanes() {
    const silent = (lane) => !lane.detected.length && !lane.truth.length;
    const all = this.recording.lanes;
    const busy = all.filter((lane) => !silent(lane));
    const folded = !this.everyLane && busy.length > 0 && busy.length < all.length;
    this.shown = folded ? busy : all;
    this.allButton.hidden = busy.length === all.length || !busy.length;
    this.allButton.textContent = folded ? `All ${all.length} classes` : "Only classes found";
    this.laneViews = [];
    this.lanes.replaceChildren(...this.shown.map((lane) => this.lane(lane)));
    this.refresh();
  }

  lane(lane) {
    const annotated = this.recording.annotated;
    const height = annotated ? 54 : 46;
    const curve = height - (annotated ? 17 : 9);
    const picture = make("svg:svg", {
      preserveAspectRatio: "none", height, role: "img",
      "aria-label": `${lane.label}: ${lane.detected.length} detected${annotated ? `, ${lane.truth.length} annotated` : ""}`,
    });
    if (lane.scores) {
      const values = bytesOf(lane.scores.values);
      lane.curve = values;
      let path = "";
      for (let i = 0; i < values.length; i++) {
        path += `${i ? "L" : "M"}${((i + 0.5) * lane.scores.step).toFixed(3)} ${(curve - 1 - (values[i] / 255) * (curve - 3)).toFixed(2)}`;
      }
      if (values.length) {
        const last = (values.length * lane.scores.step).toFixed(3);
        picture.append(make("svg:path", { class: "area", d: `M0 ${curve}L0 ${curve - 1 - (values[0] / 255) * (curve - 3)}${path.replace("M", "L")}L${last} ${curve}Z` }),
          make("svg:path", { class: "curve", d: path }));
      }
      if (lane.threshold !== null && lane.threshold <= lane.scores.top) {
        const y = (curve - 1 - (lane.threshold / lane.scores.top) * (curve - 3)).toFixed(2);
        picture.append(make("svg:line", { class: "threshold", x1: 0, x2: this.duration, y1: y, y2: y }));
      }
    }
    const bar = (kind, [onset, offset, score], y, size) => make("svg:rect", {
      class: kind, x: onset, width: Math.max(0, offset - onset), y, height: size,
      "data-label": lane.label, "data-onset": onset, "data-offset": offset, "data-score": score,
    });
    for (const event of lane.detected) picture.append(bar("band", event, 0, curve));
    for (const event of lane.truth) picture.append(bar("truth", event, curve + 1.5, 6));
    for (const event of lane.detected) picture.append(bar("detected", event, height - 7, 6));
    const scaled = lane.scores && lane.scores.top < 1;
    const label = make("div", { class: "gutter lane-label" }, make("span", {}, spaced(lane.label)),
      scaled ? make("small", { class: "scale", title: `This lane is as high as a score of ${lane.scores.top}` }, `${lane.scores.top}`) : null);
    this.laneViews.push({ lane, picture, label, height });
    return make("div", { class: "row lane", style: `--c:${colour(this.colourOf[lane.label] ?? 0)}`, "data-label": lane.label }, label, picture);
  }

  /** Another threshold of a class, and the events that follow from it; null takes what the page came with. */
  setThreshold(label, value) {
    const lane = this.recording.lanes.find((one) => one.label === label);
    if (!lane || !lane.scores) return;
    lane.given ||= { detected: lane.detected, threshold: lane.threshold };
    const next = value === null ? lane.given : { threshold: value, detected: runsAbove(lane.scores, value, this.duration) };
    if (next.threshold === lane.threshold && next.detected.length === lane.detected.length) return;
    Object.assign(lane, next);
    this.drawLanes();
  }

  // ---- behaviour ----

  listen() {
    const { track, audio } = this;
    const timeAt = (event) => {
      const box = track.getBoundingClientRect();
      return this.view[0] + clamp((event.clientX - box.left) / box.width, 0, 1) * (this.view[1] - this.view[0]);
    };
    const fingers = new Map();
    let drag = null;
    track.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      keyboardPlayer = this;
      fingers.set(event.pointerId, event.clientX);
      drag = { x: event.clientX, y: event.clientY, view: [...this.view], moved: false };
      track.setPointerCapture(event.pointerId);
    });
    track.addEventListener("pointermove", (event) => {
      this.point(event, timeAt(event));
      if (!fingers.has(event.pointerId)) return;
      const before = [...fingers.values()];
      fingers.set(event.pointerId, event.clientX);
      const after = [...fingers.values()];
      if (after.length === 2) {
        drag.moved = true;
        this.zoom(clamp(Math.abs(before[0] - before[1]) / Math.max(8, Math.abs(after[0] - after[1])), 0.8, 1.25), timeAt(event));
      } else if (drag && Math.abs(event.clientX - drag.x) > 4) {
        drag.moved = true;
        const span = drag.view[1] - drag.view[0];
        const shift = ((drag.x - event.clientX) / track.clientWidth) * span;
        if (span < this.duration) this.show(drag.view[0] + shift, drag.view[1] + shift);
        else this.seek(timeAt(event));
      }
    });
    track.addEventListener("pointerup", (event) => {
      // A finger that scrolled the page was not pointing at a time.
      if (drag && !drag.moved && Math.abs(event.clientY - drag.y) < 10) this.seek(timeAt(event));
      fingers.delete(event.pointerId);
      if (!fingers.size) drag = null;
    });
    track.addEventListener("pointercancel", () => { fingers.clear(); drag = null; });
    track.addEventListener("pointerleave", () => { this.hover.hidden = true; hideTip(); });
    track.addEventListener("wheel", (event) => {
      const span = this.view[1] - this.view[0];
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(Math.exp(clamp(event.deltaY, -50, 50) / 150), timeAt(event));
      } else if (span < this.duration && Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.show(this.view[0] + (event.deltaX / track.clientWidth) * span, this.view[1] + (event.deltaX / track.clientWidth) * span);
      }
    }, { passive: false });
    this.minimap.addEventListener("click", (event) => {
      const box = this.minimap.getBoundingClientRect();
      const [middle, half] = [((event.clientX - box.left) / box.width) * this.duration, (this.view[1] - this.view[0]) / 2];
      this.show(middle - half, middle + half);
    });
    this.element.addEventListener("focusin", () => (keyboardPlayer = this));
    audio.addEventListener("play", () => { alone(audio); this.buttonState(); this.follow(); });
    audio.addEventListener("pause", () => this.buttonState());
    audio.addEventListener("ended", () => this.buttonState());
    audio.addEventListener("loadedmetadata", () => { audio.currentTime = this.position; });
    audio.addEventListener("seeked", () => { if (!this.waiting) this.position = audio.currentTime; this.placeHead(); });
    audio.addEventListener("error", () => {
      this.notice.hidden = false;
      this.notice.textContent = "The sound cannot be played" + (this.recording.audio.href ? `: is ${this.recording.audio.href} still there?` : ".");
    });
    document.addEventListener("themechange", () => this.paint());
    onResize(this.element, () => this.refresh());
  }

  load() { load(this.audio, this.recording.audio); }

  toggle() {
    if (!this.recording.audio) return;
    this.load();
    if (this.audio.paused) {
      if (this.position >= this.duration - 0.05) this.seek(0);
      this.audio.play().catch(() => this.buttonState());
    } else this.audio.pause();
  }

  buttonState() {
    const playing = !this.audio.paused && !this.audio.ended;
    this.playButton.textContent = playing ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.element.classList.toggle("playing", playing);
  }

  seek(seconds) {
    this.position = clamp(seconds, 0, this.duration);
    if (this.recording.audio) {
      this.load();
      if (this.audio.readyState > 0) this.audio.currentTime = this.position;
    }
    const span = this.view[1] - this.view[0];
    if (this.position < this.view[0] || this.position > this.view[1]) this.show(this.position - span / 4, this.position + 0.75 * span);
    this.placeHead();
  }

  follow() {
    if (this.audio.paused) return;
    this.position = Math.min(this.audio.currentTime, this.duration);
    const span = this.view[1] - this.view[0];
    if (this.position > this.view[1] && this.view[1] < this.duration) this.show(this.position, this.position + span);
    this.placeHead();
    requestAnimationFrame(() => this.follow());
  }

  key(event) {
    const step = event.shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.toggle(), k: () => this.toggle(),
      ArrowLeft: () => this.seek(this.position - step), ArrowRight: () => this.seek(this.position + step),
      Home: () => this.seek(0), End: () => this.seek(this.duration),
      n: () => this.jump(1), p: () => this.jump(-1),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), 0: () => this.show(0, this.duration),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  }

  /** To the next or previous onset of what was detected. */
  jump(direction) {
    const onsets = this.shown.flatMap((lane) => lane.detected.map((event) => event[0])).sort((a, b) => a - b);
    const next = direction > 0 ? onsets.find((time) => time > this.position + 0.02) : onsets.findLast((time) => time < this.position - 0.02);
    if (next !== undefined) this.seek(next);
  }

  zoom(factor, centre = this.position) {
    const [low, high] = this.view;
    const span = clamp((high - low) * factor, Math.min(0.5, this.duration), this.duration);
    const anchor = clamp(centre, low, high);
    const share = (anchor - low) / (high - low || 1);
    this.show(anchor - share * span, anchor + (1 - share) * span);
  }

  show(low, high) {
    const span = Math.min(high - low, this.duration);
    const start = clamp(low, 0, this.duration - span);
    this.view = [start, start + span];
    this.refresh();
  }

  // ---- drawing ----

  x(seconds) { return ((seconds - this.view[0]) / (this.view[1] - this.view[0])) * 100; }

  refresh() {
    const [low, high] = this.view;
    for (const { picture, height } of this.laneViews) picture.setAttribute("viewBox", `${low} 0 ${high - low} ${height}`);
    const { times, digits } = timeTicks(low, high, Math.max(2, this.axis.clientWidth / 80));
    this.axis.replaceChildren(...times.map((time) => make("span", { style: `left:${this.x(time)}%` }, clock(time, digits))));
    this.drawMinimap();
    this.draw();
    this.placeHead();
  }

  drawMinimap() {
    const zoomed = this.view[1] - this.view[0] < this.duration * 0.999;
    this.minimap.classList.toggle("idle", !zoomed);
    if (!zoomed) return;
    this.minimap.setAttribute("viewBox", `0 0 ${this.duration} 10`);
    this.minimap.replaceChildren(
      ...this.shown.flatMap((lane, row) => lane.detected.map(([onset, offset]) => make("svg:rect", {
        class: "mini", x: onset, width: offset - onset, y: 1 + (8 * row) / this.shown.length, height: Math.max(0.8, 7 / this.shown.length),
        style: `--c:${colour(this.colourOf[lane.label] ?? 0)}`,
      }))),
      make("svg:rect", { class: "window", x: this.view[0], width: this.view[1] - this.view[0], y: 0, height: 10 })
    );
  }

  paint() {
    if (!this.grey) return;
    this.image = coloured(this.grey);
    this.draw();
  }

  draw() {
    if (!this.image || !this.canvas.clientWidth) return;
    const { context, width, height } = sharpened(this.canvas);
    const perSecond = this.image.width / this.recording.spectrogram.seconds;
    const [from, to] = [this.view[0] * perSecond, Math.min(this.view[1] * perSecond, this.image.width)];
    const drawn = ((to / perSecond - this.view[0]) / (this.view[1] - this.view[0])) * width;
    context.clearRect(0, 0, width, height);
    context.drawImage(this.image, from, 0, Math.max(0.01, to - from), this.image.height, 0, 0, drawn, height);
  }

  placeHead() {
    const place = this.x(this.position);
    this.head.style.left = `${place}%`;
    this.head.hidden = place < -0.01 || place > 100.01;
    this.time.textContent = `${clock(this.position)} / ${clock(this.duration)}`;
    this.track.setAttribute("aria-valuenow", this.position.toFixed(2));
    this.track.setAttribute("aria-valuetext", clock(this.position));
    for (const { lane, label } of this.laneViews) {
      label.classList.toggle("now", lane.detected.some(([onset, offset]) => onset <= this.position && this.position < offset));
    }
  }

  point(event, time) {
    if (event.pointerType === "touch") return;
    this.hover.hidden = false;
    this.hover.style.left = `${this.x(time)}%`;
    const scored = this.shown
      .filter((lane) => lane.curve)
      .map((lane) => [colour(this.colourOf[lane.label] ?? 0), spaced(lane.label), (lane.curve[Math.floor(time / lane.scores.step)] / 255) * lane.scores.top])
      .filter((line) => line[2] >= 0.01)
      .sort((a, b) => b[2] - a[2])
      .slice(0, 4)
      .map(([tint, name, value]) => [tint, name, scoreText(value)]);
    tip(event.clientX, event.clientY, [clock(time, 2), ...scored]);
  }

  /** Take the player off the page and free its sound. */
  close() {
    this.audio.pause();
    if (this.audio.src.startsWith("blob:")) URL.revokeObjectURL(this.audio.src);
    players.splice(players.indexOf(this), 1);
    if (keyboardPlayer === this) keyboardPlayer = null;
  }
}

document.addEventListener("keydown", (event) => {
  if (!keyboardPlayer || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, summary, a")) return;
  if (event.target.closest("button") && (event.key === " " || event.key === "Enter")) return;
  if (event.target.closest("[data-keys=own]")) return;
  keyboardPlayer.key(event);
});
