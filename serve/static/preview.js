// The first rows of a CSV as a table, so that people see what they send and what comes back.
const N_ROWS = 5;
const N_COLUMNS = 50;
const HEAD_BYTES = 65536;
const TOLD = ["prediction", "lower", "upper", "error"]; // what the server adds; shown first

export function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function makeTable(name, head, rows) {
  const table = make("table");
  const headRow = table.createTHead().insertRow();
  head.forEach((cell) => headRow.append(make("th", cell, { scope: "col" })));
  const body = table.createTBody();
  for (const row of rows) {
    const tableRow = body.insertRow();
    row.forEach((cell) => tableRow.append(make("td", cell)));
  }
  const attributes = { class: "scroll", role: "region", "aria-label": name, tabindex: 0 };
  const region = make("div", "", attributes);
  region.append(table);
  return region;
}

export async function makePreview(file, name, isAnswer = false) {
  const [head = [], ...rows] = parseRows(await readHead(file));
  const order = [...head.keys()];
  if (isAnswer) order.sort((a, b) => TOLD.includes(head[b]) - TOLD.includes(head[a]));
  const pick = (row) => order.slice(0, N_COLUMNS).map((place) => row[place] ?? "");
  const region = makeTable(name, pick(head), rows.map(pick));
  const isTold = (place) => isAnswer && TOLD.includes(head[order[place]]);
  for (const row of region.querySelectorAll("tr")) {
    [...row.cells].forEach((cell, place) => cell.classList.toggle("told", isTold(place)));
  }
  const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const caption = `${name}: first ${count(rows.length, "row")}, ${count(head.length, "column")}`;
  return [make("p", caption, { class: "hint" }), region];
}

async function readHead(file) {
  const magic = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const isGzip = magic[0] === 0x1f && magic[1] === 0x8b;
  const stream = isGzip
    ? file.stream().pipeThrough(new DecompressionStream("gzip"))
    : file.slice(0, HEAD_BYTES).stream();
  const reader = stream.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return new TextDecoder().decode(value ?? new Uint8Array());
}

function parseRows(text) {
  const first = text.split("\n", 1)[0];
  const times = (char) => first.split(char).length;
  const separator = [",", ";", "\t"].reduce((a, b) => (times(b) > times(a) ? b : a));
  const rows = [];
  let row = [];
  let cell = "";
  let isQuoted = false;
  for (let i = 0; i < text.length && rows.length <= N_ROWS; i++) {
    const char = text[i];
    if (isQuoted && char === '"' && text[i + 1] === '"') {
      cell += text[i++];
    } else if (char === '"' && (isQuoted || cell === "")) {
      isQuoted = !isQuoted;
    } else if (!isQuoted && (char === separator || char === "\n")) {
      row.push(cell.replace(/\r$/, ""));
      cell = "";
      if (char === "\n") rows.push(row.splice(0));
    } else {
      cell += char;
    }
  }
  if (rows.length <= N_ROWS && (cell || row.length)) rows.push([...row, cell]);
  return rows;
}
