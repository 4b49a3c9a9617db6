"""The page to drop an image on. It loads nothing from elsewhere."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>RobustScanner</title>
<style>
body { font: 16px system-ui, sans-serif; max-width: 46em; margin: 2em auto;
  padding: 0 1em; color: #222 }
#drop { display: block; border: 2px dashed #888; border-radius: 8px; padding: 2em;
  text-align: center; cursor: pointer }
#drop.over { border-color: #06c; background: #eef5ff }
#drop:focus-within { outline: 3px solid #06c }
#file { position: absolute; opacity: 0 }
#image { max-width: 100%; max-height: 8em; margin: 1em 0; display: block }
#text { font-size: 2em; min-height: 1.3em; white-space: pre-wrap }
table { border-collapse: collapse }
td, th { padding: .2em .8em .2em 0; text-align: left; font-weight: normal }
meter { width: 8em }
canvas { image-rendering: pixelated; height: 2em; background: #000 }
.error { color: #a00 }
</style>
<h1>RobustScanner</h1>
<label id="drop">Drop the image of a word here, or choose a file
<input type="file" id="file" accept="image/*"></label>
<p><label>Token, if the service asks for one:
<input type="password" id="token" autocomplete="off"></label>
<img id="image" alt="" hidden>
<div id="text" role="status"></div>
<p id="detail"></p>
<table id="characters"></table>
<p><a href="docs">API</a>
<script>
const $ = id => document.getElementById(id);
async function send(path, file) {
  const token = $("token").value;
  const response = await fetch(path, { method: "POST", body: file, headers: {
    "Content-Type": "application/octet-stream",
    ...(token ? { Authorization: "Bearer " + token } : {}) } });
  const body = await response.json();
  return { status: response.status, body };
}
function heat(rows) {
  const canvas = document.createElement("canvas");
  canvas.width = rows[0].length; canvas.height = rows.length;
  const context = canvas.getContext("2d");
  const largest = Math.max(...rows.flat());
  rows.forEach((row, y) => row.forEach((value, x) => {
    const shade = Math.round(255 * value / largest);
    context.fillStyle = `rgb(${shade},${shade},${Math.round(shade / 2)})`;
    context.fillRect(x, y, 1, 1);
  }));
  return canvas;
}
function cell(row, content) {
  const td = row.insertCell();
  td.append(content);
}
function bar(value) {
  const meter = document.createElement("meter");
  meter.value = value; meter.title = value.toFixed(4);
  return meter;
}
function show(reading, maps) {
  $("text").className = ""; $("text").textContent = reading.text || "(nothing)";
  const table = $("characters");
  table.replaceChildren();
  const head = table.insertRow();
  const names = ["", "confidence", ...(maps ? ["looked at", "by position",
    "share of position"] : [])];
  names.forEach(name => cell(head, name));
  [...reading.character_confidences].forEach((value, i) => {
    const row = table.insertRow();
    cell(row, [...reading.text][i] ?? ""); cell(row, bar(value));
    if (maps) {
      cell(row, heat(maps.hybrid_attention[i]));
      cell(row, heat(maps.position_attention[i]));
      cell(row, bar(maps.position_share[i]));
    }
  });
}
function fail(message) {
  $("text").className = "error"; $("text").textContent = message;
}
async function read(file) {
  if (!file) return;
  $("image").src = URL.createObjectURL(file); $("image").hidden = false;
  $("characters").replaceChildren(); $("detail").textContent = "";
  $("text").className = ""; $("text").textContent = "...";
  try {
    const { body } = await send("read", file);
    const reading = body.readings ? body.readings[0] : body;
    if (reading.error) return fail(reading.error);
    $("detail").textContent =
      `confidence ${reading.confidence.toFixed(4)}, ${body.milliseconds} ms`;
    show(reading, null);
    const maps = await send("explain", file);
    if (maps.status === 200) show(reading, maps.body);
  } catch (error) { fail("the service does not answer: " + error.message); }
}
$("file").onchange = event => read(event.target.files[0]);
for (const name of ["dragover", "dragleave", "drop"])
  document.addEventListener(name, event => {
    event.preventDefault();
    $("drop").className = name === "dragover" ? "over" : "";
    if (name === "drop") read(event.dataTransfer.files[0]);
  });
</script>
</html>
"""
