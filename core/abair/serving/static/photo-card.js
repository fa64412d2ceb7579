// One photo on the page: its upload, its two pictures, and the sliders that restore it anew.
"use strict";

const SHOWN = new Set(["image/jpeg", "image/png", "image/webp", "image/bmp"]); // what every browser shows
const SUFFIX = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tif", "image/bmp": "bmp" };
const WAIT = 350; // milliseconds after a slider was moved
const UNKNOWN = 0.95; // above it, damage is taken for unknown: as abair.labels has it
const SURE = 0.6; // below it, an estimate is doubtful: as abair estimate has it
const FOLLOWED = 0.5; // from it on, a photo is restored by all that was seen: as Restorer has it

class Problem extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

// Send a photo and return the answer's body and what its header says; `progress` is told the part
// that was sent.
function send(route, file, options, { token, signal, progress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
    const form = new FormData();
    form.append("file", file, file.name);
    request.open("POST", `${route}?${new URLSearchParams(options)}`);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.responseType = "blob";
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => file.slice(0, 1).arrayBuffer().then(
      () => "The server cannot be reached. Is abair serve still running?",
      () => `${file.name} cannot be read any more. Choose it again.`,
    ).then((text) => reject(new Problem(0, text)));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    request.onload = async () => {
      if (request.status === 200) {
        const blob = request.response;
        resolve({ blob, record: JSON.parse(request.getResponseHeader("ABAIR-Result") || "{}") });
        return;
      }
      let detail = `The server answered ${request.status}.`;
      try { detail = JSON.parse(await request.response.text()).detail; } catch { /* no answer of ours */ }
      const error = new Problem(request.status, detail);
      error.wait = Number(request.getResponseHeader("Retry-After") || 2);
      reject(error);
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

const pause = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, 1000 * seconds);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("", "AbortError")); });
});

class PhotoCard {
  constructor(file, page) {
    this.file = file;
    this.size = file.size; // once it was asked for, Chromium no longer takes a file that is gone for an empty one
    this.page = page;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.element.querySelector(selector);
    this.find("h2").textContent = file.name;
    this.compare = this.find("abair-compare");
    this.compare.setAttribute("label", file.name);
    this.find('[slot="before"]').alt = `${file.name} before`;
    this.find('[slot="after"]').alt = `${file.name} restored`;
    this.weights = null; // null: as it is seen
    this.urls = {};
    this.find(".remove").onclick = () => page.remove(this);
    this.find(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.find(".download").setAttribute("aria-label", `Download ${file.name}`);
    this.find(".download").onclick = () => this.download();
    this.find(".actual").onclick = () => this.zoom();
    this.compare.addEventListener("dblclick", () => this.zoom());
    this.find(".clean").onclick = () => this.choose({});
    this.find(".reset").onclick = () => { this.strength.value = "100"; this.choose(null); };
    this.strength = this.find(".strength input");
    this.strength.id = `strength-${page.nextId()}`;
    this.find(".strength label").htmlFor = this.strength.id;
    this.strength.oninput = () => this.soon();
  }

  // Restore the photo; what was under way for it is given up.
  async restore() {
    this.stop?.abort();
    const { signal } = this.stop = new AbortController();
    this.element.classList.add("busy");
    this.find(".problem").hidden = true;
    this.find("progress").hidden = false;
    this.say("Waiting");
    try {
      await this.page.turn(signal, () => this.work(signal));
      this.say("");
    } catch (error) {
      if (error.name === "AbortError") return;
      this.fail(error);
    }
    this.find("progress").hidden = true;
    this.element.classList.remove("busy");
  }

  async work(signal) {
    if (!this.urls.before) await this.showBefore(signal);
    const { blob, record } = await this.ask(signal, this.options());
    this.result = SHOWN.has(blob.type) ? blob : null;
    const again = record.further_looks.length ? this.options() : this.options(record.weights);
    const shown = this.result ?? (await this.ask(signal, { ...again, format: "png" })).blob;
    await this.show("after", shown);
    this.kept = blob;
    if (!this.used) await this.see(record, signal);
    this.tellFurther(record.further_looks);
    this.find(".warnings").replaceChildren(...record.warnings.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
    this.find(".warnings").hidden = record.warnings.length === 0;
    for (const part of ["abair-compare", ".tools", ".weights"]) this.find(part).hidden = false;
    this.compare.place();
    this.page.told(record.deployment);
  }

  // Show the photo as it came: as it is if a browser can, or else as the server decodes it.
  async showBefore(signal) {
    const plain = SHOWN.has(this.file.type);
    if (plain && await this.show("before", this.file).then(() => true, () => false)) return;
    const { blob } = await this.ask(signal, { weights: "clean=1", format: "png" });
    await this.show("before", blob);
  }

  async ask(signal, options, route = "v1/restore") {
    for (;;) {
      try {
        return await send(route, this.file, options, {
          signal, token: this.page.token,
          progress: (part) => { this.bar(part); this.say(part < 1 ? "Sending" : "Restoring"); },
        });
      } catch (error) {
        if (error.status !== 429) throw error;
        this.say("The server is busy. Waiting for a place");
        await pause(error.wait, signal);
      }
    }
  }

  options(weights = this.weights) {
    const options = { strength: this.weights === weights ? this.strength.value / 100 : 1 };
    if (weights) options.weights = Object.entries(weights).map(([label, weight]) => `${label}=${weight}`).join(",");
    return options;
  }

  async show(slot, blob) {
    const url = URL.createObjectURL(blob), image = this.find(`[slot="${slot}"]`), old = this.urls[slot];
    image.src = url;
    try { await image.decode(); } catch (error) { URL.revokeObjectURL(url); throw error; }
    this.urls[slot] = url;
    if (old) URL.revokeObjectURL(old);
  }

  // Make a row for each label: its slider, and what was seen as a bar.
  async see(record, signal) {
    let seen = record.weights;
    if (record.confidence != null && record.confidence < FOLLOWED) { // it was used in part, or not at all
      const { blob } = await this.ask(signal, {}, "v1/estimate");
      seen = JSON.parse(await blob.text()).weights;
    }
    const rows = Object.entries(seen).filter(([label]) => label !== "clean").map(([label, weight]) => {
      const row = document.createElement("div"), id = `weight-${this.page.nextId()}`, percent = Math.round(100 * weight);
      row.className = "row";
      row.innerHTML = `<label></label><input type="range" min="0" max="100"><output></output>
        <div class="seen"><svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect height="1"/></svg>
        <span></span></div>`;
      row.dataset.label = label;
      row.querySelector("label").textContent = this.page.title(label);
      row.querySelector("label").htmlFor = row.querySelector("input").id = id;
      row.querySelector("rect").setAttribute("width", percent);
      row.querySelector("span").textContent = `seen: ${percent} %`;
      row.querySelector("input").oninput = () => this.move(label);
      return row;
    });
    this.find(".rows").replaceChildren(...rows);
    if (record.confidence != null) { // null: the deployment cannot tell
      const sure = record.confidence < SURE ? "It is not sure of that" : "How sure it is of that";
      this.find(".sure").textContent = `${sure}: ${Math.round(100 * record.confidence)} %`;
      this.find(".sure").hidden = false;
    }
    if (record.unknown > UNKNOWN) {
      this.find(".sure").textContent += ". It knows no photo like this one";
      this.find(".sure").hidden = false;
    }
    this.used = record.weights;
    this.fill(this.used);
  }

  // Say what was restored beside what the sliders show.
  tellFurther(looks) {
    const titles = looks.map((weights) => {
      const damage = Object.entries(weights).filter(([label]) => label !== "clean");
      return this.page.title(damage.reduce((one, other) => (other[1] > one[1] ? other : one))[0]);
    });
    this.looks = 1 + looks.length;
    this.find(".further").textContent = `Seen in the result, and restored, too: ${titles.join(", ")}`;
    this.find(".further").hidden = titles.length === 0;
  }

  fill(weights) {
    for (const row of this.find(".rows").children) {
      row.querySelector("input").value = String(Math.round(100 * (weights[row.dataset.label] ?? 0)));
      row.querySelector("output").textContent = `${row.querySelector("input").value} %`;
    }
  }

  // A slider was moved: each weight is a part of the photo, so the others make room.
  move(label) {
    const weights = {};
    for (const row of this.find(".rows").children) weights[row.dataset.label] = row.querySelector("input").value / 100;
    const others = Object.keys(weights).filter((other) => other !== label);
    const sum = others.reduce((total, other) => total + weights[other], 0), room = 1 - weights[label];
    if (sum > room) for (const other of others) weights[other] = Math.floor(100 * weights[other] * room / sum) / 100;
    this.weights = weights;
    this.fill(weights);
    this.soon();
  }

  choose(weights) {
    this.weights = weights && { ...Object.fromEntries(Object.keys(this.used).map((label) => [label, 0])), clean: 1 };
    this.fill(this.weights ?? this.used);
    if (weights) this.soon(0); else { this.find(".strength output").textContent = "100 %"; this.restore(); }
  }

  soon(wait = WAIT) {
    this.find(".strength output").textContent = `${this.strength.value} %`;
    // what was used is used again, without another estimate; looks at the result need theirs
    if (this.looks === 1) this.weights ??= { ...this.used };
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.restore(), wait);
  }

  zoom() {
    const actual = this.compare.toggleAttribute("actual");
    this.find(".actual").setAttribute("aria-pressed", String(actual));
  }

  download() {
    if (!this.kept) return;
    const link = document.createElement("a"), stem = this.file.name.replace(/\.[^.]*$/, "");
    link.href = URL.createObjectURL(this.kept);
    link.download = `${stem}.restored.${SUFFIX[this.kept.type] ?? "bin"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  say(text) { if (this.find(".state").textContent !== text) this.find(".state").textContent = text; }

  bar(part) { if (part < 1) this.find("progress").value = part; else this.find("progress").removeAttribute("value"); }

  fail(error) {
    this.say("");
    this.find(".problem").textContent = error.message || "This photo cannot be shown.";
    this.find(".problem").hidden = false;
    if (error.status === 401) this.page.askForToken();
  }

  forget() {
    this.stop?.abort();
    clearTimeout(this.timer);
    for (const url of Object.values(this.urls)) URL.revokeObjectURL(url);
    this.element.remove();
  }
}
