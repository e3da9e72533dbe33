// The page at "/": asks for a text, and shows it as it comes. What comes from the server is only ever set as text.

const the = (id) => document.getElementById(id);
let model = null;
let writing = null; // what can abort the request that runs

async function ask(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (the("key").value) headers.Authorization = `Bearer ${the("key").value}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) {
    the("key-row").hidden = false;
    the("key").focus();
  }
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error?.message ?? `the server answered ${response.status}`);
}

async function meet() {
  if (model !== null) return;
  const { data } = await (await ask("v1/models")).json();
  model = data[0];
  the("model").textContent = document.title = `hsd: ${model.id}`;
  the("chat-row").hidden = !model.hsd.chat;
  the("chat").checked = model.hsd.chat;
  the("tokens").max = model.hsd.most_tokens;
}

function request() {
  const asked = {
    model: model.id,
    max_tokens: the("tokens").valueAsNumber,
    temperature: the("temperature").valueAsNumber,
    stream: true,
  };
  if (the("seed").value) asked.seed = the("seed").valueAsNumber;
  const prompt = the("prompt").value;
  return the("chat").checked
    ? ["v1/chat/completions", { ...asked, messages: [{ role: "user", content: prompt }] }]
    : ["v1/completions", { ...asked, prompt }];
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) if (part !== "data: [DONE]") yield JSON.parse(part.slice("data: ".length));
  }
}

class Figures {
  begun = performance.now();
  tokens = 0;
  drafted = 0;
  accepted = 0;
  passes = 0;

  add(origin) {
    this.tokens += origin.tokens;
    this.drafted += origin.drafted;
    this.accepted += origin.accepted;
    this.passes += 1;
    the("count").textContent = this.tokens;
    the("rate").textContent = ((1000 * this.tokens) / (performance.now() - this.begun)).toFixed(1);
    the("per-pass").textContent = (this.tokens / this.passes).toFixed(2);
    if (this.drafted) the("acceptance").textContent = `${Math.round((100 * this.accepted) / this.drafted)}%`;
  }
}

function show(pieces) {
  for (const [text, drafted] of pieces) {
    const span = document.createElement("span");
    span.textContent = text;
    if (drafted) span.className = "drafted";
    the("text").append(span);
  }
}

async function write() {
  the("problem").hidden = true;
  the("text").replaceChildren();
  for (const id of ["rate", "acceptance", "per-pass"]) the(id).textContent = "–";
  the("count").textContent = "0";
  const figures = new Figures();
  const [path, asked] = request();
  const response = await ask(path, { method: "POST", body: JSON.stringify(asked), signal: writing.signal });
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    if (event.hsd) {
      show(event.hsd.pieces);
      figures.add(event.hsd);
    }
  }
}

async function trying(what) {
  try {
    await what();
  } catch (error) {
    if (error.name === "AbortError") return;
    the("problem").textContent = error.message;
    the("problem").hidden = false;
  }
}

the("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (writing) return;
  writing = new AbortController();
  the("write").disabled = true;
  the("stop").disabled = false;
  await trying(async () => {
    await meet();
    await write();
  });
  writing = null;
  the("write").disabled = false;
  the("stop").disabled = true;
});
the("stop").addEventListener("click", () => writing?.abort());
trying(meet);
