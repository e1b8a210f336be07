// The films' palettes, as the page holds them, and the reader's choice between them.

const ORDER = ["auto", "dark", "light"];

/** Which palette is shown: the system's, or the one that was chosen. */
export class Theme {
  constructor(palettes, onChange) {
    this.palettes = palettes;
    this.choice = "auto";
    this.system = matchMedia("(prefers-color-scheme: light)");
    this.system.addEventListener("change", () => this.apply());
    this.onChange = onChange;
  }

  get name() {
    return this.choice === "auto" ? (this.system.matches ? "light" : "dark") : this.choice;
  }

  get palette() {
    return this.palettes[this.name];
  }

  next() {
    this.choice = ORDER[(ORDER.indexOf(this.choice) + 1) % ORDER.length];
    this.apply();
  }

  apply() {
    const style = document.documentElement.style;
    for (const [role, code] of Object.entries(this.palette)) {
      if (typeof code === "string") style.setProperty(`--${role.replaceAll("_", "-")}`, code);
    }
    style.setProperty("color-scheme", this.name);
    this.onChange();
  }
}

/** [red, green, blue], 0 to 255, of #rrggbb. */
export function rgb(code) {
  return [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16));
}
