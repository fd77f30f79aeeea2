// Shows what the upload does: a preview, the progress, the answer or what is wrong with the file.
// Without this script the form still works, as a plain one.
import { make, makePreview, makeTable } from "./preview.js";

const withId = [...document.querySelectorAll("[id]")];
const parts = Object.fromEntries(withId.map((each) => [each.id, each]));
const { batch: form, file: fileInput, status, progress } = parts;
const bar = progress.firstElementChild;
const HEADER_LINE = 1; // a missing column cannot be skipped
let request = null;
let answerUrl = "";

const count = (n) => n.toLocaleString("en", { maximumFractionDigits: 1 });

function size(bytes) {
  const step = Math.min(Math.floor(Math.log2(bytes || 1) / 10), 3);
  return `${count(bytes / 1024 ** step)} ${["bytes", "KiB", "MiB", "GiB"][step]}`;
}

function setBusy(isBusy) {
  for (const part of [parts.cancel, progress]) part.hidden = !isBusy;
  for (const part of [parts.send, parts.example]) part.hidden = isBusy;
  fileInput.disabled = isBusy;
}

function reset() {
  status.textContent = "";
  parts.answer.hidden = parts.errors.hidden = true;
}

function refuse(title, details = [], canSkip = false) {
  reset();
  parts["errors-title"].textContent = title;
  parts["errors-told"].replaceChildren(...details);
  parts.skip.parentElement.hidden = !canSkip;
  parts.errors.hidden = false;
  parts.errors.focus();
}

function tell(value) {
  if (value === null || value === "") return "blank";
  return typeof value === "string" ? value : JSON.stringify(value);
}

async function explain({ response, status: code }) {
  const told = await new Response(response).json().catch(() => ({})); // a proxy may send a page
  if (!told.errors?.length) {
    refuse(told.error ?? `The server answered ${code}.`);
    return;
  }
  const { errors, total = errors.length } = told;
  const rest = total > errors.length ? `, the first ${errors.length} of them:` : ":";
  const summary = `${count(total)} ${total === 1 ? "problem" : "problems"}${rest}`;
  const head = ["Line", "Column", "Value", "Problem"];
  const rows = errors.map((each) => [each.row ?? "", each.field, tell(each.value), each.reason]);
  const table = makeTable("Wrong values", head, rows);
  const canSkip = errors.some(({ row }) => row > HEADER_LINE) && !parts.on_error.checked;
  refuse("Nothing was predicted", [make("p", summary), table], canSkip);
}

async function showAnswer(blob, name) {
  URL.revokeObjectURL(answerUrl);
  answerUrl = URL.createObjectURL(blob);
  parts.download.href = answerUrl;
  parts.download.download = `${name.replace(/(\.(csv|tsv|txt))?(\.gz)?$/i, "")}-predicted.csv`;
  parts.download.textContent = `Download ${parts.download.download}, ${size(blob.size)}`;
  parts["answer-rows"].replaceChildren(...(await makePreview(blob, "Answer", true)));
  status.textContent = "";
  parts.answer.hidden = false;
  parts.answer.focus();
}

function send(file) {
  const body = new FormData(form);
  request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.responseType = "blob";
  request.setRequestHeader("Accept", "application/json, text/csv;q=0.9");
  request.upload.onprogress = ({ loaded, total }) => (bar.value = (100 * loaded) / (total || 1));
  request.upload.onload = () => {
    bar.removeAttribute("value"); // from now on nobody knows how far it is
    status.textContent = "Predicting …";
  };
  request.onload = () =>
    request.status === 200 ? showAnswer(request.response, file.name) : explain(request);
  request.onerror = () =>
    refuse("The connection broke off. The server may have stopped, or refuse a file this large.");
  request.onabort = () => (status.textContent = "Cancelled.");
  request.onloadend = () => setBusy(false);
  reset();
  setBusy(true);
  bar.value = 0;
  status.textContent = `Uploading ${file.name}, ${size(file.size)} …`;
  parts.cancel.focus();
  request.send(body);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const [file] = fileInput.files;
  const limit = Number(form.dataset.maxBytes) || Infinity;
  if (file.size <= limit) send(file);
  else refuse(`${file.name} has ${size(file.size)}, the server takes at most ${size(limit)}.`);
});

fileInput.addEventListener("change", async () => {
  reset();
  const [file] = fileInput.files;
  parts.preview.hidden = !file;
  if (!file) return;
  const unreadable = [make("p", "This file cannot be shown here.", { class: "hint" })];
  parts.preview.replaceChildren(...(await makePreview(file, file.name).catch(() => unreadable)));
});

parts.cancel.addEventListener("click", () => request.abort());
parts.skip.addEventListener("click", () => {
  parts.on_error.checked = true;
  form.requestSubmit();
});

// The file field fills its zone and takes a drop by itself. One beside it would leave the page.
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(type, (event) => {
    const isInside = event.target === fileInput;
    const isOver = isInside && ["dragenter", "dragover"].includes(type);
    fileInput.parentElement.classList.toggle("over", isOver);
    if (!isInside) event.preventDefault();
  });
}
