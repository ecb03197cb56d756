// The camera's pictures, one after another, as quickly as they are read.

import { bars, boxes, make, sentence } from "./views.js";

// The longer side at which a camera's picture is looked at: faces before a camera are large.
const SIDE = 320;
const MOST_FACES = 4;
const SHOWN = 4;

/** Switches the camera on and off. ask: the worker; fail: told of what goes wrong; switched: told
 * whether it is on. */
export class Camera {
  constructor(ask, fail, switched) {
    this.ask = ask;
    this.fail = fail;
    this.switched = switched;
    this.stream = null;
    this.video = document.querySelector("#video");
  }

  async start() {
    try {
      if (!navigator.mediaDevices) throw new Error("that takes https, or a page of this machine");
      const wanted = { video: { width: 640, facingMode: "user" }, audio: false };
      this.stream = await navigator.mediaDevices.getUserMedia(wanted);
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.fail(`The camera cannot be used: ${error.message}`);
      this.stop();
      return;
    }
    for (const track of this.stream.getTracks()) {
      track.addEventListener("ended", () => {
        this.fail("The camera has been taken away.");
        this.stop();
      });
    }
    document.querySelector("#live").hidden = false;
    this.switched(true);
    this.read(this.stream);
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
    document.querySelector("#live").hidden = true;
    this.switched(false);
  }

  /** The faces in what the camera shows now. */
  async look() {
    const picture = await createImageBitmap(this.video);
    const task = { picture, maxSide: SIDE, most: MOST_FACES, squares: false, turned: false };
    return this.ask("predict", task, { transfer: [picture] });
  }

  async read(stream) {
    const stage = this.video.parentElement;
    const list = document.querySelector("#live-faces");
    const rate = document.querySelector("#rate");
    const ends = [];
    while (this.stream === stream) {
      let found;
      try {
        found = await this.look();
      } catch (error) {
        if (this.stream !== stream) return; // it was switched off meanwhile
        this.fail(error.message);
        this.stop();
      }
      if (this.stream !== stream) return;
      stage.querySelector("svg")?.remove();
      stage.append(boxes(found));
      list.replaceChildren(
        ...found.faces.map((face, i) =>
          make(
            "li", {},
            make("strong", {}, sentence(face, i + 1, found.faces.length)),
            bars(face.scores, face.label, SHOWN),
          ),
        ),
      );
      ends.push(performance.now());
      if (ends.length > 20) ends.shift();
      const seconds = (ends.at(-1) - ends[0]) / 1000;
      if (seconds > 0) rate.textContent = `${((ends.length - 1) / seconds).toFixed(1)} pictures a second`;
    }
  }
}
