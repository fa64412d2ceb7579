// The page: what is dropped becomes a card, and two photos at a time go to the server.
"use strict";

const AT_A_TIME = 2;
const find = (id) => document.getElementById(id);

// Return the files of what was dropped, folders' included; hidden ones and those that are known to
// be no photos are passed over in folders.
async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) { // a browser gives a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    found.push(...some.filter((one) => !one.name.startsWith(".")));
  }
  found.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  const files = (await Promise.all(found.map(filesOf))).flat();
  return files.filter((file) => file.type === "" || file.type.startsWith("image/"));
}

class Page {
  cards = [];
  titles = {};
  token = sessionStorage.getItem("abair-token") ?? "";
  #ids = 0;
  #running = 0;
  #waiting = [];

  constructor() {
    find("files").onchange = (event) => { this.add(event.target.files); event.target.value = ""; };
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
      document.addEventListener(kind, (event) => {
        event.preventDefault();
        find("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
        if (kind === "drop") this.drop(event.dataTransfer);
      });
    }
    document.addEventListener("paste", (event) => this.add(event.clipboardData.files));
    find("download-all").onclick = () => this.cards.forEach((card, i) => setTimeout(() => card.download(), 300 * i));
    find("remove-all").onclick = () => [...this.cards].forEach((card) => this.remove(card));
    find("login").onsubmit = (event) => {
      event.preventDefault();
      this.token = find("token").value;
      sessionStorage.setItem("abair-token", this.token);
      find("login").hidden = true;
      this.begin();
      for (const card of this.cards) if (!card.kept) card.restore();
    };
    this.begin();
  }

  // Learn the names of what the server knows.
  async begin() {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    try {
      const answer = await fetch("v1/deployment", { headers });
      if (answer.status === 401) { this.askForToken(); return; }
      const found = await answer.json();
      this.titles = Object.fromEntries(found.adapters.map((adapter) => [adapter.degradation, adapter.title]));
      this.told(found.deployment);
    } catch {
      find("status").textContent = "The server cannot be reached. Is abair serve still running?";
    }
  }

  // A folder stands for the photos in it.
  async drop(given) {
    const entries = [...given.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) { this.add(given.files); return; }
    try {
      const files = (await Promise.all(entries.map(filesOf))).flat();
      this.add(files);
      if (files.length === 0) find("status").textContent = "There are no photos in this folder.";
    } catch {
      find("status").textContent = "This folder cannot be read.";
    }
  }

  add(files) {
    for (const file of files) {
      const card = new PhotoCard(file, this);
      this.cards.push(card);
      find("photos").append(card.element);
      card.restore();
    }
    this.count();
  }

  remove(card) {
    const next = this.cards[this.cards.indexOf(card) + 1];
    this.cards = this.cards.filter((other) => other !== card);
    card.forget();
    this.count();
    (next?.find(".remove") ?? find("files")).focus();
  }

  count() {
    const number = this.cards.length;
    find("all").hidden = number < 2;
    find("status").textContent = number === 0 ? "" : number === 1 ? "1 photo" : `${number} photos`;
  }

  // Call `work` when it is its turn.
  async turn(signal, work) {
    if (this.#running >= AT_A_TIME) await new Promise((resolve) => this.#waiting.push(resolve));
    this.#running += 1;
    try {
      signal.throwIfAborted();
      return await work();
    } finally {
      this.#running -= 1;
      this.#waiting.shift()?.();
    }
  }

  askForToken() { find("login").hidden = false; find("token").focus(); }

  title(label) { return this.titles[label] ?? label; }

  told(deployment) { find("deployment").textContent = deployment; }

  nextId() { return ++this.#ids; }
}

new Page();
