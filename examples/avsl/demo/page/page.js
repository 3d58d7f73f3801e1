// The page asks its own server only. A result is kept there, and the sliders ask for its pictures again.
"use strict";

const $ = id => document.getElementById(id);
const chosen = { picture: null, sound: null };
let about = null, result = null, busy = false;

const isVideo = () => Boolean(chosen.picture?.type.startsWith("video/"));

async function answer(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The demo does not answer. Does it still run in the terminal?");
  }
  const content = response.headers.get("content-type")?.startsWith("application/json") ? await response.json() : {};
  if (!response.ok) throw new Error(content.error ?? `The demo answered ${response.status}.`);
  return content;
}

function say(text, error = "") {
  $("status").textContent = text;
  $("error").textContent = error;
  $("error").hidden = !error;
}

function address(element, file) {
  if (element.src) URL.revokeObjectURL(element.src);
  if (file) element.src = URL.createObjectURL(file);
  else element.removeAttribute("src");
  element.hidden = !file;
}

function choose(kind, file) {
  chosen[kind] = file;
  const video = isVideo();
  address($("shown-picture"), video ? null : chosen.picture);
  address($("shown-video"), video ? chosen.picture : null);
  address($("shown-sound"), video ? null : chosen.sound);
  $("sound").disabled = $("sources").disabled = $("identification").disabled = video;
  $("drop-sound").classList.toggle("off", video);
  $("sound-hint").textContent = video ? "The video's own sound is used." : "Choose a file, or drop it here.";
  say("");
}

function drop(kind, files) {
  // Two files at once are told apart by their type.
  if (files.length === 1) setFile(kind, files[0]);
  else for (const file of files) setFile(file.type.startsWith("audio/") ? "sound" : "picture", file);
}

function setFile(kind, file) {
  const transfer = new DataTransfer();
  transfer.items.add(file);
  $(kind).files = transfer.files;
  choose(kind, file);
}

async function run() {
  const video = isVideo(), files = video ? [chosen.picture] : [chosen.picture, chosen.sound];
  if (files.includes(null)) {
    say("", `Expected a picture and a sound, or a video, but there is no ${chosen.picture ? "sound" : "picture"} yet.`);
    return;
  }
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size > about.megabytes * 1e6) {
    say("", `Expected files of ${about.megabytes} MB or less, but got ${(size / 1e6).toFixed(1)} MB.`);
    return;
  }
  const query = new URLSearchParams(video ? { video: size } : { picture: files[0].size, sound: files[1].size });
  if (!video) query.set("identification", $("identification").value);
  if (!video && $("sources").value) query.set("sources", $("sources").value);
  const started = performance.now();
  const clock = setInterval(() => say(`Working … ${Math.round((performance.now() - started) / 1000)} s`), 1000);
  say("Working …");
  $("result").hidden = true;
  try {
    show(await answer(`localize?${query}`, { method: "POST", body: new Blob(files) }));
    clearInterval(clock);
    say(`Done in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
  } catch (error) {
    clearInterval(clock);
    say("", error.message);
  }
}

async function whileBusy(job) {
  if (busy) return;
  setBusy(true);
  try {
    await job();
  } finally {
    setBusy(false);
  }
}

function setBusy(value) {
  busy = value;
  for (const button of document.querySelectorAll("button")) button.disabled = value;
}

function show(answered) {
  result = answered;
  $("text").textContent = result.text;
  $("warning").textContent = result.warning;
  $("warning").hidden = !result.warning;
  $("views").replaceChildren(...result.views.map(view => {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption");
    const title = document.createElement("b"), note = document.createElement("span");
    image.alt = `Map: ${view.title}`;
    title.textContent = view.title;
    note.textContent = view.note;
    caption.append(title, note);
    figure.append(image, caption);
    return figure;
  }));
  $("views").classList.toggle("frames", result.video);
  $("heat").hidden = !result.video;
  if (result.video) $("heat-video").src = $("download").href = `results/${result.id}/video.mp4`;
  else $("heat-video").removeAttribute("src");
  redraw();
  $("result").hidden = false;
  $("result").scrollIntoView({ block: "nearest" });
}

function redraw() {
  for (const name of ["threshold", "opacity"]) $(`${name}-value`).textContent = $(name).value;
  const query = `threshold=${$("threshold").value}&opacity=${$("opacity").value}`;
  document.querySelectorAll("#views img").forEach((image, number) => {
    // While a picture loads, only the last wish waits: a moved slider would ask for dozens.
    image.wish = `results/${result.id}/${number}.jpg?${query}`;
    if (image.loading_) return;
    image.onload = image.onerror = () => {
      image.loading_ = false;
      if (!image.src.endsWith(image.wish)) load(image);
    };
    load(image);
  });
}

function load(image) {
  image.loading_ = true;
  image.src = image.wish;
}

async function tryScene(number) {
  try {
    for (const [kind, name, type] of [["picture", "scene.jpg", "image/jpeg"], ["sound", "scene.wav", "audio/wav"]]) {
      const response = await fetch(`scenes/${number}/${kind}`);
      setFile(kind, new File([await response.blob()], name, { type }));
    }
  } catch {
    say("", "The demo does not answer. Does it still run in the terminal?");
    return;
  }
  $("sources").value = String(about.scenes[number].sources);
  await run();
}

async function start() {
  about = await answer("model");
  $("model").textContent = `Model: ${about.model}, method: ${about.method}. Everything stays on this machine.`;
  $("limits").textContent = `Up to ${about.megabytes} MB; sounds and videos up to ${about.seconds} s. ` +
    "Of a sound, the center 3 s are used.";
  for (let count = 1; count <= about.sources; count++) $("sources").append(new Option(String(count)));
  $("identification").append(...about.identifications.map((name, i) => new Option(i ? name : `${name} (the model's)`, name)));
  $("scenes").append(...about.scenes.map((scene, number) => {
    const button = document.createElement("button"), image = document.createElement("img");
    button.type = "button";
    image.src = `scenes/${number}/picture`;
    image.alt = "";
    button.append(image, `Plays: ${scene.sounding}. Silent: ${scene.silent}.`);
    button.addEventListener("click", () => whileBusy(() => tryScene(number)));
    return button;
  }));
}

for (const kind of ["picture", "sound"]) {
  $(kind).addEventListener("change", () => choose(kind, $(kind).files[0] ?? null));
  const zone = $(`drop-${kind}`);
  zone.addEventListener("dragover", () => zone.classList.add("over"));
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", event => {
    zone.classList.remove("over");
    drop(kind, event.dataTransfer.files);
  });
}
// A picture that the browser can't show may still be one that the model can read.
for (const name of ["picture", "video"]) $(`shown-${name}`).addEventListener("error", () => { $(`shown-${name}`).hidden = true; });
// A file that misses both zones must not replace the page.
for (const name of ["dragover", "drop"]) document.addEventListener(name, event => event.preventDefault());
for (const name of ["threshold", "opacity"]) $(name).addEventListener("input", redraw);
$("form").addEventListener("submit", event => { event.preventDefault(); whileBusy(run); });
start().catch(error => { $("model").textContent = ""; say("", error.message); });
