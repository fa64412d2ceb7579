// <abair-compare>: two images on top of each other, and a line between them that a slider moves.
//
//   <abair-compare label="cat.jpg"><img slot="before" ...><img slot="after" ...></abair-compare>
//
// The attribute `actual` shows the photo pixel by pixel, to be scrolled. It works with the keyboard
// and on touch screens, needs no other file, and keeps to a Content-Security-Policy without inline
// styles. The page of `abair serve` and that of `abair restore --page` use it.
"use strict";

(() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    :host { display: grid; grid-template-columns: minmax(0, max-content); max-width: 100% }
    .view { min-width: 0; overflow: hidden; touch-action: pan-y; cursor: ew-resize; max-width: 100% }
    :host([actual]) .view { overflow: auto; max-height: 80vh; touch-action: auto; cursor: default }
    .pair { display: grid; grid-template-columns: minmax(0, max-content); position: relative;
            width: fit-content; max-width: 100%; --at: 50% }
    :host([actual]) .pair { grid-template-columns: max-content; max-width: none }
    ::slotted(img) { grid-area: 1 / 1; display: block; max-width: 100%; user-select: none }
    :host([actual]) ::slotted(img) { max-width: none; image-rendering: pixelated }
    ::slotted([slot="after"]) { clip-path: inset(0 0 0 var(--at)) }
    .line { position: absolute; inset: 0 auto 0 var(--at); width: 3px; margin-left: -1.5px;
            background: #fff; box-shadow: 0 0 0 1px #000; pointer-events: none }
    .view:focus-visible, input:focus-visible { outline: 3px solid #1a6fd6; outline-offset: 2px }
    input { width: 100%; height: 2.75rem; margin: 0; accent-color: #1a6fd6 }
  `);

  class Compare extends HTMLElement {
    static observedAttributes = ["actual", "label"];

    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [sheet];
      const make = (tag, name) => Object.assign(document.createElement(tag), { className: name });
      this.view = make("div", "view");
      this.pair = make("div", "pair");
      for (const name of ["before", "after"]) {
        this.pair.append(Object.assign(document.createElement("slot"), { name }));
      }
      this.pair.append(make("div", "line"));
      this.view.append(this.pair);
      this.range = Object.assign(document.createElement("input"), {
        type: "range", min: "0", max: "100", step: "0.5", value: "50",
      });
      root.append(this.view, this.range);
      this.range.addEventListener("input", () => this.place());
      this.view.addEventListener("scroll", () => this.place());
      this.view.addEventListener("pointerdown", (event) => this.drag(event));
      this.view.addEventListener("pointermove", (event) => this.drag(event));
      this.addEventListener("load", () => this.place(), true);
    }

    connectedCallback() { this.place(); }

    attributeChangedCallback() { this.place(); }

    // Where the line is, in percent of what is seen: 0 shows the photo as restored.
    get position() { return Number(this.range.value); }

    set position(percent) { this.range.value = String(percent); this.place(); }

    drag(event) {
      if (this.hasAttribute("actual") || !(event.buttons & 1)) return;
      const box = this.pair.getBoundingClientRect();
      this.position = 100 * (event.clientX - box.left) / box.width;
      if (event.type === "pointerdown") this.view.setPointerCapture(event.pointerId);
      event.preventDefault();
    }

    place() {
      const actual = this.hasAttribute("actual"), label = this.getAttribute("label") || "photo";
      for (const image of this.querySelectorAll("img")) {
        image.draggable = false;
        // one pixel of the photo is one of the screen
        image.style.width = actual && image.naturalWidth ? `${image.naturalWidth / devicePixelRatio}px` : "";
      }
      const at = actual ? `${this.view.scrollLeft + this.view.clientWidth * this.position / 100}px` : `${this.position}%`;
      this.pair.style.setProperty("--at", at);
      this.range.setAttribute("aria-label", `Line between before and after: ${label}`);
      this.range.setAttribute("aria-valuetext", `${Math.round(this.position)} % before, the rest after`);
      if (actual) {
        this.view.tabIndex = 0;
        this.view.setAttribute("role", "group");
        this.view.setAttribute("aria-label", `${label} at 100 %; the arrow keys scroll`);
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) this.view.removeAttribute(name);
      }
    }
  }

  customElements.define("abair-compare", Compare);
})();
