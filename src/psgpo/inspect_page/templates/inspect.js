"use strict";
// Draws what is chosen out of the data in #data (psgpo.inspect_page.model.Page), and only that.
// Text is set as text, never as markup: programs are untrusted. One response is drawn by response.js.

const page = JSON.parse(document.getElementById("data").textContent);
const byProblem = page.problems.map(() => []);
page.responses.forEach((response, number) => byProblem[response.problem].push(number));

const state = { problem: 0, responses: [0, 0], prms: [0, 0], arm: 0, compare: false, active: 0, tokens: false };
const knowsTokens = page.responses.some((response) => response.tokens);
const opened = new Set(); // "pane:line" whose tokens are shown other than `state.tokens` says
let shortcuts = true;

// ---- small tools ----

/** An element; `props` are attributes, but for listeners ("onclick"); false, null and undefined are left out. */
function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const spoken = (text) => h("span", { class: "sr" }, text);
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const last = (items) => items[items.length - 1];
const chain = (facts) => facts.filter(Boolean).map((fact) => h("span", {}, fact));

function number(value, digits = 2) {
  if (value === null || value === undefined) return "";
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
}

function select(key, label, options, chosen, onchange) {
  const items = options.map((text, value) => h("option", { value, selected: value === chosen }, text));
  const listener = (event) => onchange(Number(event.target.value));
  return h("label", { class: "choice" }, h("span", {}, label),
    h("select", { "data-key": key, onchange: listener }, items));
}

function button(key, text, onclick, props = {}) {
  return h("button", { type: "button", "data-key": key, onclick, ...props }, text);
}

/** A region that scrolls sideways; focusable, so that keys can scroll it. By its key it has the focus again when drawn anew. */
function scroll(key, label, ...children) {
  return h("div", { class: "scroll", "data-key": key, tabindex: 0, role: "region", "aria-label": label }, children);
}

/** Text that can be opened. */
function folded(key, title, text) {
  return h("details", {}, h("summary", { "data-key": key }, title), h("pre", {}, text));
}

function table(heads, rows, props = {}) {
  const cells = heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text));
  return h("table", props, h("thead", {}, h("tr", {}, cells)), h("tbody", {}, rows));
}

/** Why something is not there, and the command that makes it: the first of these kinds that has a reason. */
function absent(title, kinds) {
  const found = kinds.map((kind) => page.missing[kind]).find(Boolean) || { reason: "not there" };
  const command = found.command ? h("code", {}, found.command) : null;
  return h("p", { class: "absent" }, h("b", {}, `${title}: `), found.reason, command);
}

const missingKinds = (start) => Object.keys(page.missing).filter((kind) => kind.startsWith(start));

// ---- what is chosen ----

const response = (pane) => page.responses[state.responses[pane]];
const prm = (pane) => page.prms[state.prms[pane]];
const arm = () => page.arms[state.arm];
const panes = () => (state.compare ? [0, 1] : [0]);
const passes = (r) => r.verdict.status === "PASSED";
const nameOf = (r) => `${r.checkpoint}, ${r.greedy ? "greedy" : `response ${r.index}`}`;
const keyOf = (r) => `${r.checkpoint}/${r.greedy ? "greedy" : r.index}`;

function chooseProblem(problem) {
  const mine = byProblem[problem];
  // Stay with the same checkpoint where the problem has a response of it.
  const before = [response(0), response(1)].map(keyOf);
  state.problem = problem;
  state.responses = before.map((key) => mine.find((n) => keyOf(page.responses[n]) === key) ?? mine[0]);
  const same = state.responses[0] === state.responses[1] && state.prms[0] === state.prms[1];
  if (state.compare && same) chooseOther();
  opened.clear();
}

/** What the second pane begins with: a response with the other verdict, else another, else another PRM. */
function chooseOther() {
  const others = byProblem[state.problem].filter((n) => n !== state.responses[0]);
  const rival = others.find((n) => passes(page.responses[n]) !== passes(response(0))) ?? others[0];
  state.responses[1] = rival ?? state.responses[0];
  const turn = rival === undefined && page.prms.length > 1;
  state.prms[1] = turn ? (state.prms[0] + 1) % page.prms.length : state.prms[0];
}

function step(by) {
  const mine = byProblem[state.problem];
  const next = mine[mine.indexOf(state.responses[state.active]) + by];
  if (next === undefined) return say(by > 0 ? "Last response of this problem" : "First response of this problem");
  state.responses[state.active] = next;
  opened.clear();
  draw();
}

function stepProblem(by) {
  const next = state.problem + by;
  if (!page.problems[next]) return say(by > 0 ? "Last problem" : "First problem");
  chooseProblem(next);
  draw(problemName());
}

/** The next response, of this problem or a later one, that the PRM gets wrong somewhere; from the end to the start. */
function stepMistake() {
  const order = byProblem.flat();
  const here = order.indexOf(state.responses[state.active]);
  const later = [...order.slice(here + 1), ...order.slice(0, here)];
  const found = later.find((n) => mistakes(page.responses[n], prm(state.active)).some(Boolean));
  if (found === undefined) return say("No other response with a score on the wrong side of its label");
  const moves = page.responses[found].problem !== state.problem;
  if (moves) chooseProblem(page.responses[found].problem);
  state.responses[state.active] = found;
  opened.clear();
  draw(moves ? problemName() : "");
}

function toggleCompare() {
  state.compare = !state.compare;
  state.active = 0;
  if (state.compare) chooseOther();
  draw(state.compare ? "Two side by side" : "One response");
}

function toggleTokens() {
  if (!knowsTokens) return say("Tokens are not known");
  state.tokens = !state.tokens;
  opened.clear();
  draw(state.tokens ? "Tokens shown" : "Tokens hidden");
}

function nextPrm() {
  if (!page.prms.length) return say("No PRM");
  state.prms[state.active] = (state.prms[state.active] + 1) % page.prms.length;
  draw(`PRM ${prm(state.active).name}`);
}

function otherPane() {
  if (!state.compare) return say("Only one response is shown");
  activate(1 - state.active);
  say(described());
}

/** The pane that keys act on. */
function activate(pane) {
  if (!state.compare || state.active === pane) return;
  state.active = pane;
  document.querySelectorAll(".pane").forEach((one, n) => {
    one.classList.toggle("active", n === pane);
    one.querySelector(".which").textContent = n === pane ? " keys act here" : "";
  });
}

// The address keeps what is chosen: #problem=…&a=checkpoint/index&prm-a=…&b=…&prm-b=…&arm=…&compare&tokens

function readHash() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const problem = page.problems.findIndex((one) => one.id === wanted.get("problem"));
  if (problem < 0) return;
  const named = (items, key) => Math.max(0, items.findIndex((one) => one.name === wanted.get(key)));
  const mine = byProblem[problem];
  state.problem = problem;
  ["a", "b"].forEach((name, pane) => {
    state.responses[pane] = mine.find((n) => keyOf(page.responses[n]) === wanted.get(name)) ?? mine[0];
    state.prms[pane] = named(page.prms, `prm-${name}`);
  });
  state.arm = named(page.arms, "arm");
  state.compare = wanted.has("compare");
  state.tokens = wanted.has("tokens") && knowsTokens;
  state.active = 0;
}

function writeHash() {
  const chosen = new URLSearchParams({ problem: page.problems[state.problem].id });
  for (const pane of panes()) {
    chosen.set("ab"[pane], keyOf(response(pane)));
    if (page.prms.length) chosen.set(`prm-${"ab"[pane]}`, prm(pane).name);
  }
  if (page.arms.length) chosen.set("arm", arm().name);
  if (state.compare) chosen.set("compare", "");
  if (state.tokens) chosen.set("tokens", "");
  history.replaceState(null, "", `#${chosen}`);
}

// ---- the page around the responses ----

function drawControls() {
  const counts = byProblem.map((mine) => `${mine.filter((n) => passes(page.responses[n])).length} of ${mine.length}`);
  const names = page.problems.map((one, n) => `${one.id} (${counts[n]} pass)`);
  const arms = page.arms.map((one) => one.name);
  const arrow = (key, sign, by, title) => button(key, sign, () => stepProblem(by), { "aria-label": title, title });
  const toggle = (key, text, act, on, title) => button(key, text, act, { "aria-pressed": String(on), title });
  const help = { "aria-label": "Keys and columns", title: "Keys and columns (?)" };
  document.getElementById("controls").replaceChildren(
    h("span", { class: "group" }, arrow("back", "‹", -1, "Previous problem"),
      select("problem", "Problem", names, state.problem, (value) => { chooseProblem(value); draw(problemName()); }),
      arrow("on", "›", 1, "Next problem")),
    arms.length ? select("arm", "Rewards of arm", arms, state.arm, (value) => { state.arm = value; draw(); }) : "",
    h("span", { class: "group" },
      knowsTokens ? toggle("tokens", "Tokens", toggleTokens, state.tokens, "Tokens of every line (t)") : "",
      toggle("compare", "Compare", toggleCompare, state.compare, "Two side by side (c)"),
      page.prms.length ? button("mistake", "Next PRM mistake", stepMistake, { title: "Next PRM mistake (d)" }) : "",
      button("help", "?", openHelp, help)));
}

function drawProblem() {
  const problem = page.problems[state.problem];
  const held = { true: "not in the PRMs' training data", false: "in the PRMs' training data" }[problem.held_out];
  const level = problem.difficulty === null ? "" : `difficulty ${problem.difficulty}`;
  document.getElementById("problem").replaceChildren(
    h("h2", { class: "prompt" }, problem.prompt || problem.id),
    h("p", { class: "facts" }, chain([problem.id, problem.split, level, held])),
    problem.prompt ? "" : absent("Prompt and tests", ["tests"]),
    problem.starter_code ? folded("starter", "Starter code", problem.starter_code) : "",
    problem.reference ? folded("reference", "Reference solution", problem.reference) : "");
}

function described() {
  const r = response(state.active);
  const mine = byProblem[state.problem];
  const which = state.compare ? `Response ${"AB"[state.active]}: ` : "";
  const place = `${mine.indexOf(state.responses[state.active]) + 1} of ${mine.length}`;
  return `${which}${place}, ${nameOf(r)}, ${r.verdict.status}, ${r.verdict.passed} of ${r.verdict.total} tests`;
}

function say(text) {
  document.getElementById("status").textContent = text;
}

const problemName = () => `Problem ${page.problems[state.problem].id}`;

/** Everything anew. Said: `news`, what has changed beside the response, and which response is shown. */
function draw(news = "") {
  const focused = document.activeElement && document.activeElement.dataset.key;
  drawControls();
  drawProblem();
  const area = document.getElementById("panes");
  area.className = state.compare ? "two" : "";
  const differs = state.compare ? differences() : [null];
  area.replaceChildren(...panes().map((pane) => drawPane(pane, differs[pane])));
  const again = focused && document.querySelector(`[data-key="${focused}"]`);
  if (again) again.focus();
  writeHash();
  say([news, described()].filter(Boolean).join("; "));
}

// ---- keys ----

const KEYS = [
  ["j, →", "next response", () => step(1)], ["k, ←", "previous response", () => step(-1)],
  ["]", "next problem", () => stepProblem(1)], ["[", "previous problem", () => stepProblem(-1)],
  ["d", "next response that the PRM gets wrong", stepMistake],
  ["m", "next PRM", nextPrm], ["t", "tokens of every line", toggleTokens],
  ["c", "compare two", toggleCompare], ["o", "the other of the two", otherPane], ["?", "this help", openHelp],
];
const ACTIONS = new Map(KEYS.flatMap(([keys, , act]) => keys.split(", ").map((key) => [key, act])));
const ARROWS = { ArrowRight: "→", ArrowLeft: "←" };
const LEGEND = [
  ["Colour", "the PRM's score, printed beside the line: blue is good, orange is bad, strong is sure"],
  ["!", "the score is on the other side than the exact label, or the search's where there is none"],
  ["label", "+ the search could complete the lines up to here, − it could not, · a neutral line, ? left open"],
  ["exact", "the same from the embedded benchmark's oracle"],
  ["reward", "what the arm pays for the line, at its last token; the unit tests pay at the end"],
  ["value, advantage", "of the arm's critic as it starts, before each token; open a line's number to see them"],
];

function openHelp() {
  const dialog = document.getElementById("help");
  const keys = (text) => text.split(", ").map((key) => h("kbd", {}, key));
  const rows = KEYS.map(([text, what]) => h("tr", {}, h("th", { scope: "row" }, keys(text)), h("td", {}, what)));
  const listener = (event) => { shortcuts = event.target.checked; };
  dialog.replaceChildren(
    h("h2", { id: "help-title" }, "Keys and columns"),
    h("table", {}, h("tbody", {}, rows)),
    h("label", { class: "check" }, h("input", { type: "checkbox", checked: shortcuts, onchange: listener }),
      " Single keys act"),
    h("dl", {}, LEGEND.map(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]).flat()),
    button("close", "Close", () => dialog.close()));
  dialog.showModal();
}

function onKey(event) {
  if (!shortcuts || event.ctrlKey || event.altKey || event.metaKey) return;
  const at = event.target instanceof Element ? event.target : document.body;
  if (at.closest("select, input, textarea, dialog")) return;
  const region = at.closest(".scroll");
  if (event.key in ARROWS && region && region.scrollWidth > region.clientWidth) return;
  const act = ACTIONS.get(ARROWS[event.key] || event.key);
  if (!act) return;
  event.preventDefault();
  act();
}

function start() {
  document.getElementById("facts").replaceChildren(...chain(page.facts));
  const footer = h("footer", {}, h("p", { class: "note" }, "Made by ", h("code", {}, page.command)));
  document.querySelector("main").append(footer);
  document.addEventListener("keydown", onKey);
  const dialog = document.getElementById("help");
  dialog.addEventListener("close", () => dialog.contains(document.activeElement) && document.activeElement.blur());
  window.addEventListener("hashchange", () => { readHash(); draw(); });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("panes").focus();
  });
  chooseProblem(0);
  readHash();
  draw();
}
