// The clock: engine time that passes at a declared factor, or stands.

export const FACTORS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100];

/** Engine time in ns since the runs' begin; `onTick` is called whenever it changes. */
export class Clock {
  constructor(onTick) {
    Object.assign(this, { t: 0, end: 1, factor: 1, playing: false, onTick, last: 0 });
  }

  /** The factor at which a run takes between five seconds and a minute to watch; as measured where that holds. */
  static fitting(seconds) {
    if (seconds >= 5 && seconds <= 60) return 1;
    return FACTORS.reduce((best, factor) =>
      Math.abs(Math.log(seconds / factor / 25)) < Math.abs(Math.log(seconds / best / 25)) ? factor : best,
    );
  }

  set(t) {
    this.t = Math.max(0, Math.min(t, this.end));
    this.onTick();
  }

  toggle() {
    if (this.playing) return this.pause();
    if (this.t >= this.end) this.t = 0;
    this.playing = true;
    this.last = performance.now();
    this.onTick();
    requestAnimationFrame((now) => this.#frame(now));
  }

  pause() {
    this.playing = false;
    this.onTick();
  }

  #frame(now) {
    if (!this.playing) return;
    // Where little motion is asked for, the clock moves four times a second.
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (now - this.last >= (calm ? 250 : 0)) {
      // A hidden page draws no frames; time that passed unseen is not skipped over.
      this.t = Math.min(this.t + Math.max(Math.min(now - this.last, 500), 0) * 1e6 * this.factor, this.end);
      this.last = now;
      if (this.t >= this.end) this.playing = false;
      this.onTick();
    }
    requestAnimationFrame((later) => this.#frame(later));
  }
}
