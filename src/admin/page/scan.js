// Reads a QR code: by the camera where the browser lets us, else from a photo that the telephone's own camera app takes. The
// browser's detector if it has one, else the decoder of https://github.com/paulmillr/qr (qr/LICENSE). No picture leaves the browser.

const $ = selector => document.querySelector(selector);
/** How a photo is looked at, in turn. A large picture hides a small code in noise, a small one loses it. A code that was taken far
    from the side is square again when the picture is squeezed from the other sides. */
const LOOKS = [
  ...[1000, 1800, 600, 2600].map(longest => ({ longest })),
  ...[0, 1, 2, 3].map(eighths => ({ longest: 1400, turn: (eighths * Math.PI) / 4, squeeze: 0.5 })),
];
const BETWEEN_LOOKS = 150;

let stream;

/** Offers what this browser can do; `found` takes the text of the code. */
export function offer(found) {
  const canFilm = window.isSecureContext && navigator.mediaDevices?.getUserMedia;
  $("#scan").hidden = !canFilm;
  $("#scan").addEventListener("click", () => film(found));
  $("#scan-stop").addEventListener("click", stop);
  $("#photo").addEventListener("change", async event => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    note("Reading the photo…");
    const text = await fromPhoto(file).catch(() => undefined);
    take(text, found, "No code was found on the photo. Take it from closer, with the code flat and in good light.");
  });
}

function note(text) {
  Object.assign($("#scan-note"), { textContent: text, hidden: !text });
}

function take(text, found, otherwise) {
  if (!text) return note(otherwise);
  if (!/^MT:/i.test(text)) return note("This QR code is not a setup code of Matter: that begins with MT:");
  note("The code was read.");
  found(text);
}

async function film(found) {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    return note(error.name === "NotAllowedError" ? "The browser may not use the camera. Allow it, or take a photo." : "There is no camera to be had. Take a photo, or type the code.");
  }
  const video = $("#viewfinder video");
  $("#viewfinder").hidden = false;
  note("Hold the code into the picture.");
  video.srcObject = stream;
  await video.play();
  const read = await reader();
  while (stream) {
    const text = video.videoWidth ? await read(picture(video, video.videoWidth, video.videoHeight, { longest: 900 })) : undefined;
    if (text) {
      stop();
      return take(text, found);
    }
    await new Promise(done => setTimeout(done, BETWEEN_LOOKS));
  }
}

function stop() {
  stream?.getTracks().forEach(track => track.stop());
  stream = undefined;
  $("#viewfinder").hidden = true;
  note("");
}

async function fromPhoto(file) {
  const [photo, read] = [await createImageBitmap(file), await reader()];
  for (const look of LOOKS) {
    const text = await read(picture(photo, photo.width, photo.height, look));
    if (text) return text;
  }
}

/** A picture scaled so that its longer side is at most `longest`, then turned and squeezed from left and right. */
function picture(source, width, height, { longest, turn = 0, squeeze = 1 }) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const [w, h, sin, cos] = [width * scale, height * scale, Math.abs(Math.sin(turn)), Math.abs(Math.cos(turn))];
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round((w * cos + h * sin) * squeeze));
  canvas.height = Math.max(1, Math.round(w * sin + h * cos));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.translate(canvas.width / 2, canvas.height / 2);
  context.scale(squeeze, 1);
  context.rotate(turn);
  context.drawImage(source, -w / 2, -h / 2, w, h);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** What reads the text of a code in a picture; `undefined` where there is none. */
async function reader() {
  const formats = await window.BarcodeDetector?.getSupportedFormats().catch(() => []);
  const detector = formats?.includes("qr_code") ? new BarcodeDetector({ formats: ["qr_code"] }) : undefined;
  const { decodeQR } = await import("./qr/decode.js");
  return async image => {
    const [seen] = (await detector?.detect(image).catch(() => [])) ?? [];
    if (seen) return seen.rawValue;
    try {
      return decodeQR(image);
    } catch {
      return undefined;
    }
  };
}
