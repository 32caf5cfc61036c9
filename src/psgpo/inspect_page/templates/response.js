// Draws one response: verdict, lines with their tokens, what is missing, the search's probes, the tests.

function drawPane(pane, differs) {
  const r = response(pane);
  const title = `Response ${"AB"[pane]}`;
  const active = state.compare && state.active === pane;
  const which = h("span", { class: "which" }, active ? " keys act here" : "");
  return h("section", {
    class: active ? "pane active" : "pane",
    "aria-label": state.compare ? title : "Response",
    onfocusin: () => activate(pane),
    onclick: () => activate(pane),
  },
  state.compare ? h("h3", {}, title, which) : "",
  drawChoices(pane), drawVerdict(r), drawProgram(pane, differs), drawNotes(pane), drawSearch(pane), drawTests(pane));
}

/** Which checkpoint, which of its responses, and which PRM colours it. */
function drawChoices(pane) {
  const r = response(pane);
  const all = byProblem[state.problem].map((n) => page.responses[n]);
  const names = [...new Set(all.map((one) => one.checkpoint))];
  const groups = names.map((name) => all.filter((one) => one.checkpoint === name));
  const mine = groups[names.indexOf(r.checkpoint)];
  const take = (one) => { state.responses[pane] = page.responses.indexOf(one); opened.clear(); draw(); };
  const same = (one) => one.index === r.index && one.greedy === r.greedy;
  const colour = (n) => { state.prms[pane] = n; draw(`PRM ${prm(pane).name}`); };
  const tests = (one) => `${passes(one) ? "✓" : "✗"} ${one.verdict.passed} of ${one.verdict.total} tests`;
  const checkpoints = names.map((name, n) => `${name} (${groups[n].filter(passes).length} of ${groups[n].length} pass)`);
  const responses = mine.map((one) => `${one.greedy ? "greedy" : one.index}: ${tests(one)}`);
  const prms = page.prms.map((one) => `PRM ${one.name}`);
  return h("div", { class: "choices" },
    select(`checkpoint-${pane}`, "Checkpoint", checkpoints, names.indexOf(r.checkpoint),
      (n) => take(groups[n].find(same) ?? groups[n][0])),
    select(`response-${pane}`, "Response", responses, mine.indexOf(r), (n) => take(mine[n])),
    prms.length ? select(`prm-${pane}`, "Coloured by", prms, state.prms[pane], colour) : "");
}

function drawVerdict(r) {
  const tokens = r.tokens ? plural(r.tokens.length, "token") : "";
  const facts = [plural(r.lines.length, "line"), tokens, r.finished ? "" : "cut off before its end", r.verdict.mode];
  return h("div", { class: "verdict" },
    h("p", {}, h("b", { class: passes(r) ? "up" : "down" }, `${passes(r) ? "✓" : "✗"} ${r.verdict.status}`),
      ` ${r.verdict.passed} of ${r.verdict.total} tests hold`, h("span", { class: "facts" }, chain(facts))),
    r.verdict.detail ? h("p", { class: "detail" }, h("code", {}, r.verdict.detail)) : "");
}

// ---- lines ----

function wrongSide() {
  return h("b", { class: "wrong", title: "On the other side than the label" }, "!", spoken(" disagrees with the label"));
}

/** A PRM's name, or the last folder of its path that says something. */
const shortName = (view) => last(view.name.split("/").filter((part) => part && part !== "model")) || view.name;

/** How a score is drawn, on the PRM's own scale. */
function tint(view, score) {
  if (!view || score === null || score === undefined) return { kind: "", strength: 0 };
  const away = view.form === "share" ? score : (score - view.threshold) / view.span;
  return { kind: away >= 0 ? "good" : "bad", strength: (0.06 + 0.4 * Math.min(1, Math.abs(away))).toFixed(2) };
}

/** Whether the PRM calls line m good or bad; "" where it has no score, or scores shares, which have no sides. */
function side(r, view, m) {
  const scores = view && view.form === "signed" && r.scores[view.name];
  return scores ? tint(view, scores[m]).kind : "";
}

const MEANINGS = { "+": "can be completed", "−": "cannot be completed", "·": "neutral", "?": "not known" };

function mark(sign) {
  const meaning = sign in MEANINGS ? spoken(` ${MEANINGS[sign]}`) : null;
  return h("td", { class: `mark m${"+−".indexOf(sign[0]) + 1}` }, sign, meaning);
}

function searchMark(r, m) {
  const label = r.label.labels[m];
  if (r.lines[m].neutral) return "·";
  if (r.label.unlabelled) return "?";
  // A share of exactly one half is no good line, as everywhere else.
  if (r.label.real_valued || !Number.isInteger(label)) return label > 0 ? number(label) : `−${Math.abs(label).toFixed(2)}`;
  return label > 0 ? "+" : label < 0 ? "−" : "?";
}

/** Per line, whether the score is on the other side than the label: the exact one, or the search's. */
function mistakes(r, view) {
  const wanted = { "+": "good", "−": "bad" };
  return r.lines.map((_, m) => {
    const sign = r.exact ? exactMark(r, m) : r.label ? searchMark(r, m) : "";
    const [label, called] = [wanted[sign[0]], side(r, view, m)];
    return Boolean(label && called) && label !== called;
  });
}

function exactMark(r, m) {
  if (r.lines[m].neutral) return "·";
  return m < r.exact.last_on_track ? "+" : "−";
}

/** Per pane and line, whether it differs: other text, or under two PRMs of one response another side. */
function differences() {
  const [a, b] = [response(0), response(1)];
  if (a === b) {
    const differs = a.lines.map((line, m) => {
      const [left, right] = [0, 1].map((pane) => side(a, prm(pane), m));
      return !line.neutral && Boolean(left && right) && left !== right;
    });
    return [differs, differs];
  }
  // Lines outside a longest common subsequence of both programs.
  const [left, right] = [a, b].map((one) => one.lines.map((line) => line.text));
  const common = Array.from({ length: left.length + 1 }, () => new Array(right.length + 1).fill(0));
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      const skipped = Math.max(common[i + 1][j], common[i][j + 1]);
      common[i][j] = left[i] === right[j] ? common[i + 1][j + 1] + 1 : skipped;
    }
  }
  const differs = [left.map(() => true), right.map(() => true)];
  for (let i = 0, j = 0; i < left.length && j < right.length;) {
    if (left[i] === right[j]) differs[0][i++] = differs[1][j++] = false;
    else if (common[i + 1][j] >= common[i][j + 1]) i++;
    else j++;
  }
  return differs;
}

function drawProgram(pane, differs) {
  const r = response(pane);
  const view = prm(pane);
  const scores = view && r.scores[view.name];
  const credit = arm() && r.credit[arm().name];
  const shown = { r, view, scores, credit, differs, wrong: mistakes(r, view) };
  const heads = [
    [spoken("Line number, opens its tokens"), "n"], scores && [shortName(view), "n"], r.label && ["label", "mark"],
    r.exact && ["exact", "mark"], ["Line", "line"], differs && [["≠", spoken(" differs")], "mark"],
    credit && ["reward", "n"],
  ].filter(Boolean);
  const rows = r.lines.flatMap((_, m) => lineRows(pane, m, heads.length, shown));
  const empty = h("tr", {}, h("td", { colspan: heads.length, class: "quiet" }, "This response has no code lines."));
  rows.push(...endRows(pane, heads.length, shown));
  const around = (where, text) => (text.trim() ? folded(`${where}-${pane}`, `Text ${where} the code`, text) : "");
  return h("div", {},
    around("before", r.before),
    scroll(`program-${pane}`, `Program of ${nameOf(r)}, line by line`, table(heads, r.lines.length ? rows : empty, { class: "code" })),
    around("after", r.after));
}

function lineRows(pane, m, width, { r, view, scores, credit, differs, wrong }) {
  const line = r.lines[m];
  const { kind, strength } = line.neutral ? { kind: "", strength: 0 } : tint(view, scores && scores[m]);
  const [key, label] = [`${pane}:${m}`, `Line ${m + 1}, tokens`];
  const open = isOpen(key);
  const row = h("tr", { class: differs && differs[m] && "differs" },
    h("td", { class: "n no" }, r.tokens ? expander(key, m + 1, label, open) : m + 1),
    scores ? h("td", { class: "n score" }, number(scores[m]), wrong[m] ? wrongSide() : null) : null,
    r.label ? mark(searchMark(r, m)) : null,
    r.exact ? mark(exactMark(r, m)) : null,
    h("td", { class: `line ${kind}${line.neutral ? " neutral" : ""}`, style: `--a:${strength}` },
      h("code", {}, line.text)),
    differs ? h("td", { class: "mark" }, differs[m] ? ["≠", spoken(" differs")] : "") : null,
    credit ? h("td", { class: "n" }, amount(credit.line_rewards[m])) : null);
  if (!r.tokens || !open) return [row];
  return [row, tokenRow(r, m ? r.lines[m - 1].end + 1 : 0, line.end + 1, { width, credit, label, line: key })];
}

/** What comes after the last line: the end-of-sequence token, where the unit tests pay. */
function endRows(pane, width, { r, scores, credit, differs }) {
  const start = r.tokens && r.lines.length ? last(r.lines).end + 1 : 0;
  if (!start || start >= r.tokens.length) return [];
  const [key, label] = [`${pane}:end`, "After the last line, tokens"];
  const row = h("tr", {},
    h("td", { class: "n no" }, expander(key, "end", label, isOpen(key))),
    [scores, r.label, r.exact].filter(Boolean).map(() => h("td", {})),
    h("td", { class: "quiet" }, r.finished ? "end of the response" : "cut off here"),
    differs ? h("td", {}) : null,
    credit ? h("td", { class: "n" }, amount(last(credit.rewards)), spoken(" with the unit tests")) : null);
  return isOpen(key) ? [row, tokenRow(r, start, r.tokens.length, { width, credit, label, line: key })] : [row];
}

const amount = (value) => (value ? number(value, 3) : "0");
const isOpen = (key) => state.tokens !== opened.has(key);

function expander(key, text, label, open) {
  const act = () => { if (!opened.delete(key)) opened.add(key); draw(); };
  return button(`line-${key}`, String(text), act, { "aria-expanded": String(open), "aria-label": label });
}

/** A token as one can see it: newlines as ↵, spaces at its ends as dots. */
function shownToken(text) {
  return text.replaceAll("\n", "↵").replace(/^ +| +$|(?<=↵) +/g, (spaces) => "·".repeat(spaces.length));
}

function tokenRow(r, start, end, { width, credit, label, line }) {
  const merged = "ends in the same token as the line before";
  if (start >= end) return h("tr", { class: "tokens" }, h("td", { colspan: width, class: "quiet" }, merged));
  const places = Array.from({ length: end - start }, (_, n) => start + n);
  const heads = [["token", ""], ...places.map((t) => [h("code", {}, shownToken(r.tokens[t])), "n"])];
  const cells = (values) => places.map((t) => h("td", { class: "n" }, amount(values[t])));
  const row = (name, values) => values.length && h("tr", {}, h("th", { scope: "row" }, name), cells(values));
  const rows = credit
    ? [row("reward", credit.rewards), row("value", credit.values), row("advantage", credit.advantages)].filter(Boolean)
    : [];
  return h("tr", { class: "tokens" }, h("td", { colspan: width }, scroll(`tokens-${line}`, label, table(heads, rows))));
}

// ---- what is missing, and what the numbers mean ----

function drawNotes(pane) {
  const r = response(pane);
  const view = prm(pane);
  const credit = arm() && r.credit[arm().name];
  const note = (text) => h("p", { class: "note" }, text);
  const notes = [
    view && r.scores[view.name] && note(`PRM ${view.name}, target ${view.target}: ${view.origin}.`),
    credit && note(payment(r, arm())),
    r.label && r.label.guessed && note("This label rests on a probability, not on programs that were judged."),
    r.label && r.label.unlabelled && note(`The search gave up: ${r.label.unlabelled}`),
    !view && absent("PRM scores", [...missingKinds("prm "), "prm"]),
    view && !r.scores[view.name] && absent(`Scores of PRM ${view.name}`, [`prm ${view.name}`]),
    !r.label && absent("Search labels", [`labels ${r.checkpoint}`, "labels"]),
    !r.exact && absent("Exact labels", ["exact"]),
    !r.tokens && absent("Tokens", ["tokens"]),
    !arm() && absent("Rewards, values and advantages", ["credit", ...missingKinds("arm ")]),
    arm() && !credit && absent(`Credit of arm ${arm().name}`, [`arm ${arm().name}`, "exact"]),
    credit && !credit.values.length && absent("Values and advantages", [`values ${arm().name}`]),
  ].filter(Boolean);
  return h("div", { class: "notes" }, notes);
}

function payment(r, a) {
  const weight = passes(r) ? a.lambda_pass : a.lambda_fail;
  const whose = a.prm === "oracle" ? "the exact oracle (upper bound)" : `PRM ${a.prm}`;
  const paid = `line reward ${a.line_reward} of ${whose}, λ = ${weight}`;
  const reward = a.line_reward === "none" ? "no line reward" : paid;
  return `Arm ${a.name} in its first step: ${reward}; critic: ${a.critic}; γ = ${a.gamma}, λ of GAE = ` +
    `${a.gae_lambda}. Advantages before whitening; there is no KL yet.`;
}

// ---- the search ----

function drawSearch(pane) {
  const r = response(pane);
  if (!r.label) return "";
  const { probes, labels, last_solvable: solvable, strategy } = r.label;
  const cost = [plural(r.label.completions, "completion"), plural(r.label.tokens, "token"),
    `${plural(r.label.executions, "program")} judged`].join(", ");
  const found = passes(r) ? "the response passes, so all its lines can be completed"
    : `the first ${solvable} of ${labels.length} lines can be completed`;
  const exact = r.exact && r.exact.last_on_track !== solvable ? ` (exactly: ${r.exact.last_on_track})` : "";
  const drawn = Math.max(0, ...probes.filter((probe) => probe.passed).map((probe) => probe.line));
  const free = !passes(r) && probes.length && solvable > drawn
    ? h("p", { class: "note" }, `${lines(drawn + 1, solvable)} needed no draw: a program known to pass begins so.`)
    : "";
  const heads = [["#", "n"], ["Kept", ""], ["Passed", "n"], ["Answer", ""], [spoken("First passing completion"), "wide"]];
  const rows = probes.map((probe, n) => probeRow(pane, probe, n));
  const joined = "The program was joined with others of the problem; no prefix of it was completed.";
  const reason = strategy === "splice" ? joined : "No completion had to be drawn for this response.";
  const none = passes(r) ? "" : h("p", { class: "note" }, reason);
  return h("section", { "aria-label": "Search" },
    h("h4", {}, "Search"),
    h("p", { class: "lead" }, `${strategy}: ${found}${exact}. Spent on it: ${cost}.`), free,
    probes.length ? scroll(`probes-${pane}`, "Probes in the order asked", table(heads, rows)) : none);
}

const lines = (from, to) => (from === to ? `Line ${from}` : `Lines ${from}–${to}`);

function probeRow(pane, probe, n) {
  const key = `completion-${pane}-${n}`;
  const completion = probe.completion && h("details", {}, h("summary", { "data-key": key }, "First passing completion"),
    drawCompletion(...probe.completion));
  return h("tr", {},
    h("td", { class: "n" }, n + 1), h("td", { class: "short" }, lines(1, probe.line)),
    h("td", { class: "n" }, `${probe.passed} of ${probe.drawn}`),
    h("td", { class: probe.passed ? "short up" : "short down" }, probe.passed ? "+ can be completed" : "− none passed"),
    h("td", {}, completion || (probe.passed ? absent("Completion", ["completions"]) : "")));
}

/** The whole program; lines that the model wrote anew have a +, as in a diff. */
function drawCompletion(kept, added) {
  const first = kept.split("\n").length - 1;
  const rows = `${kept}${added}`.replace(/\n+$/, "").split("\n").map((line, n) => (n < first
    ? h("span", { class: "kept" }, `  ${line}\n`)
    : h("span", { class: "added" }, `+ ${line}\n`)));
  return h("pre", { class: "completion" }, rows);
}

// ---- tests ----

function drawTests(pane) {
  const r = response(pane);
  const tests = page.problems[r.problem].tests;
  if (!tests.length) return "";
  const rows = tests.map((test, n) => {
    const status = r.verdict.outcomes[n];
    const kind = !status ? "quiet" : status === "PASSED" ? "up" : "down";
    const text = status ? `${status === "PASSED" ? "✓" : "✗"} ${status}` : "not recorded";
    return h("tr", {}, h("td", { class: "n" }, n + 1), h("td", { class: `short ${kind}` }, text),
      h("td", {}, h("code", {}, test.call)), h("td", {}, test.expected && h("code", {}, test.expected)));
  });
  const heads = [["#", "n"], ["Outcome", ""], ["Test", ""], ["Expected", ""]];
  const failing = r.verdict.first_failing === null ? "" : `; the first that fails is ${r.verdict.first_failing + 1}`;
  const more = tests.length < r.verdict.total
    ? h("p", { class: "note" }, `The first ${tests.length} are shown${failing}.`)
    : "";
  return h("details", { open: rows.length <= 12 },
    h("summary", { "data-key": `test-list-${pane}` }, `Tests: ${r.verdict.passed} of ${r.verdict.total} hold`), more,
    scroll(`tests-${pane}`, "Tests", table(heads, rows)));
}

start();
