"""The page in a real headless Chromium: clicks, keys, the address, what is read out, contrast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inspect_world import ADDED, BAD, HELD, SEEN, World, write_search

from chromium import NO_CHROMIUM, Chromium, skips_browser
from psgpo.inspect_page.build import build_page

pytestmark = pytest.mark.skipif(skips_browser(), reason=NO_CHROMIUM)


def chosen(page: Chromium, key: str) -> str:
    """Text of the chosen option."""
    return str(page.js(f"document.querySelector('[data-key=\"{key}\"]').selectedOptions[0].text"))


def shown(page: Chromium, pane: int = 0) -> str:
    """Checkpoint, response and outcome."""
    return f"{chosen(page, f'checkpoint-{pane}').partition(' ')[0]}, {chosen(page, f'response-{pane}')}"


def column(page: Chromium, title: str, pane: int = 0) -> list[str]:
    """What stands in a column of the program's table, line by line; without its hidden words."""
    return list(
        page.js(
            f"""(() => {{
              const table = document.querySelectorAll('table.code')[{pane}];
              const heads = [...table.rows[0].cells].map((cell) => cell.firstChild.textContent);
              const at = heads.indexOf({json.dumps(title)});
              const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains('tokens'));
              return rows.filter((row) => row.querySelector('td.line')).map((row) => row.cells[at].childNodes.length
                ? row.cells[at].childNodes[0].textContent : '');
            }})()"""
        )
    )


def test_the_first_response_is_drawn_with_score_label_and_exact_label(page: Chromium) -> None:
    assert page.text("h2") == "add one"
    assert shown(page, 0).startswith("baseline/step-1, 0: ✓ 2 of 2")
    page.key("j")
    assert column(page, "Line") == BAD.splitlines()
    assert column(page, "label") == ["+", "·", "−", "−"]
    assert column(page, "exact") == ["+", "·", "−", "−"]
    scores = page.js("page.responses[state.responses[0]].scores.sign")
    assert column(page, "sign") == [f"{'−' if s < 0 else '+'}{abs(s):.2f}" for s in scores]
    sides = page.js("[...document.querySelectorAll('td.line')].map((cell) => cell.className)")
    assert sides == [
        "line good" if scores[0] >= 0 else "line bad",
        "line  neutral",
        "line good" if scores[2] >= 0 else "line bad",
        "line good" if scores[3] >= 0 else "line bad",
    ]


def test_keys_walk_over_responses_and_problems(page: Chromium) -> None:
    for key, place in (("j", 1), ("ArrowRight", 2), ("j", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)):
        page.key(key)
        assert page.js("byProblem[state.problem].indexOf(state.responses[0])") == place, key
    assert page.text("#status") == "First response of this problem"
    page.key("]")
    assert chosen(page, "problem").startswith(SEEN)
    page.key("[")
    assert chosen(page, "problem").startswith(HELD)
    page.key("j", modifiers=2)
    assert page.js("state.responses[0]") == page.js("byProblem[0][0]")  # Ctrl+J is the browser's


def test_what_a_key_changed_is_announced(page: Chromium) -> None:
    for key, said in (
        ("m", "PRM progress; "),
        ("t", "Tokens shown; "),
        ("t", "Tokens hidden; "),
        ("]", f"Problem {SEEN}; "),
        ("c", "Two side by side; Response A: "),
        ("c", "One response; "),
    ):
        page.key(key)
        assert page.text("#status").startswith(said), key
    page.key("[")
    page.key("j")
    assert page.text("#status").startswith("2 of ")


@pytest.mark.parametrize("key", ["program-0", "test-list-0", "probes-0"])
def test_a_region_keeps_the_focus_when_a_key_draws_anew(page: Chromium, key: str) -> None:
    page.key("j")
    page.js(f"document.querySelector('[data-key=\"{key}\"]').focus()")
    page.key("m")
    assert page.js("document.activeElement.dataset.key") == key


def test_keys_leave_the_menus_alone_and_can_be_switched_off(page: Chromium) -> None:
    page.js("document.querySelector('[data-key=\"arm\"]').focus()")
    page.key("c")
    assert page.js("document.querySelectorAll('.pane').length") == 1
    page.js("document.activeElement.blur()")
    page.key("?")
    assert page.js("document.getElementById('help').open")
    page.click("#help input")
    page.key("Escape")
    assert not page.js("document.getElementById('help').open")
    while not page.js("document.activeElement === document.body"):  # the browser takes the focus back by itself
        pass
    page.key("c")
    assert page.js("document.querySelectorAll('.pane').length") == 1
    page.click('[data-key="compare"]')
    assert page.js("document.querySelectorAll('.pane').length") == 2


def test_arrows_choose_in_a_menu(page: Chromium) -> None:
    page.js("document.querySelector('[data-key=\"problem\"]').focus()")
    for key, wanted in (("ArrowDown", SEEN), ("ArrowDown", "t/1"), ("ArrowUp", SEEN)):  # the menu keeps the focus
        page.key(key)
        assert chosen(page, "problem").startswith(wanted)
        assert page.text(".facts:not(#facts)").startswith(wanted)
    page.js("document.querySelector('[data-key=\"prm-0\"]').focus()")
    page.key("ArrowDown")
    assert chosen(page, "prm-0") == "PRM progress"
    assert all(column(page, "progress"))


def test_arrows_scroll_a_region_that_is_wider_than_its_place(page: Chromium) -> None:
    page.look(width=400)
    wide = "[...document.querySelectorAll('.scroll')].find((one) => one.scrollWidth > one.clientWidth)"
    first = page.js("location.hash")
    page.js(f"{wide}.focus()")
    page.key("ArrowRight")
    assert page.js("location.hash") == first
    page.js("document.activeElement.blur()")
    page.key("ArrowRight")
    assert page.js("location.hash") != first


def test_a_line_opens_its_tokens_by_click_and_by_enter(page: Chromium) -> None:
    page.key("j")
    page.click('[data-key="line-0:2"]')
    assert page.js("document.querySelectorAll('tr.tokens').length") == 1
    button = "document.querySelector('[data-key=\"line-0:2\"]')"
    assert page.js(f"{button}.getAttribute('aria-expanded')") == "true"
    assert page.js(f"document.activeElement === {button}")
    heads = page.js("[...document.querySelectorAll('tr.tokens tbody th')].map((cell) => cell.innerText)")
    assert heads == ["reward", "value", "advantage"]
    shown = page.js("[...document.querySelectorAll('tr.tokens tbody tr:first-child td')].map((cell) => cell.innerText)")
    credit = page.js("page.responses[state.responses[0]].credit.both")
    lines = page.js("page.responses[state.responses[0]].lines.map((line) => line.end)")
    rewards = credit["rewards"][lines[1] + 1 : lines[2] + 1]
    assert shown == [f"{'−' if r < 0 else '+'}{abs(r):.3f}" if r else "0" for r in rewards]
    page.key("Enter")
    assert page.js("document.querySelectorAll('tr.tokens').length") == 0
    page.key("t")
    assert page.js("document.querySelectorAll('tr.tokens').length") == 5  # four lines and the end


def test_a_probe_opens_the_first_completion_that_passed(page: Chromium) -> None:
    page.key("j")
    assert "Line 1" in page.text("section[aria-label=Search] table")
    assert not page.js("document.querySelector('section[aria-label=Search] details').open")
    assert page.text("section[aria-label=Search] summary") == "First passing completion"
    page.click("section[aria-label=Search] summary")
    lines = page.text("pre.completion").splitlines()
    added = [f"+     {ADDED.splitlines()[0]}", *(f"+ {line}" for line in ADDED.splitlines()[1:])]
    assert lines == ["  def solve(x):", *added]


def test_two_responses_side_by_side(page: Chromium) -> None:
    page.key("c")
    assert shown(page, 0).startswith("baseline/step-1, 0: ✓")
    assert shown(page, 1).startswith("baseline/step-2, 0: ✗")  # the other verdict
    assert column(page, "≠", 0) == ["", "≠", ""]
    assert column(page, "≠", 1) == ["", "≠", "≠", ""]
    page.key("o")
    page.key("j")
    assert shown(page, 1).startswith("baseline/step-2, 1")
    assert shown(page, 0).startswith("baseline/step-1")
    page.click('.pane:first-child [data-key="line-0:0"]')
    assert page.js("state.active") == 0
    assert "keys act here" in page.text(".pane:first-child h3")
    page.key("c")
    page.choose('[data-key="problem"]', 2)
    assert shown(page, 0).startswith("baseline, 0: ✗")
    page.key("c")
    assert shown(page, 1).startswith("baseline, greedy: ✓")  # not the next one, which fails too


def test_two_prms_side_by_side(page: Chromium) -> None:
    page.key("]")  # one response alone: the second pane shows it under the other PRM
    page.key("c")
    assert [chosen(page, f"prm-{pane}") for pane in (0, 1)] == ["PRM sign", "PRM progress"]
    assert column(page, "sign", 0) != column(page, "progress", 1)
    page.choose('[data-key="prm-1"]', 0)
    assert column(page, "sign", 0) == column(page, "sign", 1)
    page.key("m")
    assert chosen(page, "prm-0") == "PRM progress"


def test_prms_differ_where_their_sides_do_and_never_on_neutral_lines(page: Chromium) -> None:
    page.key("j")
    scores = {"sign": [1, 1, 1, -1], "judge": [1, -1, -1, None], "progress": [0.1, 0.2, -0.3, 0.3]}
    page.js(f"Object.assign(page.responses[state.responses[0]].scores, {json.dumps(scores)})")
    page.key("c")
    page.choose('[data-key="checkpoint-1"]', 1)
    assert shown(page, 0) == shown(page, 1)
    page.choose('[data-key="prm-1"]', 2)
    assert column(page, "≠", 0) == column(page, "≠", 1) == ["", "", "≠", ""]
    page.choose('[data-key="prm-1"]', 1)  # shares have no sides
    assert column(page, "≠", 0) == [""] * 4


def test_scores_on_the_other_side_than_the_label_are_marked_and_found(page: Chromium) -> None:
    page.js("page.responses.forEach((r) => { if (r.scores.sign) r.scores.sign = r.lines.map(() => 0.5); })")
    bad = page.js("page.responses.findIndex((r) => r.checkpoint === 'baseline/step-2' && r.index === 1)")
    page.js(f"page.responses[{bad}].scores.sign = [null, 0.5, 0.5, -0.5]")  # without a score there is no mistake
    marked = "[...document.querySelectorAll('td.score')].map((cell) => cell.textContent)"
    page.key("d")
    assert shown(page, 0).startswith("baseline/step-2, 0")
    assert page.js(marked)[2:] == ["+0.50! disagrees with the label"] * 2
    page.click('[data-key="mistake"]')
    assert page.js(marked) == ["", "+0.50", "+0.50! disagrees with the label", "−0.50"]
    page.key("d")
    assert chosen(page, "problem").startswith(SEEN)
    for policy in ("baseline", "dense"):  # samples have exact labels
        for response in (0, 1):
            page.key("d")
            assert shown(page, 0).startswith(f"{policy}, {response}: ✗")
    page.key("d")
    assert chosen(page, "problem").startswith(HELD)  # from the end to the start
    page.key("m")
    page.key("d")
    assert page.text("#status") == "No other response with a score on the wrong side of its label"


def test_a_sample_of_a_final_policy_has_exact_labels_and_the_prms_mistakes_are_marked(page: Chromium) -> None:
    page.choose('[data-key="problem"]', 2)
    page.choose('[data-key="checkpoint-0"]', 1)
    assert shown(page, 0).startswith("dense, 0: ✗")
    assert column(page, "exact") == ["+", "·", "−", "−"]
    assert "Exact labels" not in page.text(".notes")
    page.js("page.responses[state.responses[0]].scores.sign = [0.5, 0.5, 0.5, -0.5]")
    page.key("t")
    marked = page.js("[...document.querySelectorAll('td.score')].map((cell) => cell.textContent)")
    assert marked == ["+0.50", "+0.50", "+0.50! disagrees with the label", "−0.50"]
    page.choose('[data-key="arm"]', 3)
    assert chosen(page, "arm") == "exact"
    assert column(page, "reward") == ["+0.063", "0", "−0.063", "−0.063"]


def test_the_address_keeps_what_is_chosen(page: Chromium, page_file: Path) -> None:
    page.key("j")
    page.key("c")
    page.choose('[data-key="checkpoint-1"]', 1)
    page.choose('[data-key="response-1"]', 1)
    page.choose('[data-key="prm-1"]', 1)
    page.choose('[data-key="arm"]', 1)
    page.key("t")
    before = page.js("document.querySelector('main').innerText")
    address = page.js("location.hash")
    assert "arm=dense" in address
    page.open(page_file, address)
    assert page.js("location.hash") == address
    assert page.js("document.querySelector('main').innerText") == before
    page.open(page_file, "#problem=none&a=gone")
    assert chosen(page, "problem").startswith(HELD)


def test_what_is_missing_names_its_command(page: Chromium) -> None:
    page.choose('[data-key="problem"]', 2)
    notes = page.text(".notes")
    assert "Search labels: a run labels responses of the baseline's checkpoints only" in notes
    assert "psgpo labels make --model hf:" in notes
    page.choose('[data-key="arm"]', 2)
    assert "Values and advantages" in page.text(".notes")
    assert "--until rl-late" in page.text(".notes")


def test_without_models_there_are_no_tokens_to_open(browser: Chromium, small_run: Path, tmp_path: Path) -> None:
    build_page(small_run, tmp_path / "stored.html", stored=True)
    browser.open(tmp_path / "stored.html", "#tokens")
    assert browser.js("document.querySelectorAll('[data-key=tokens], td.no button').length") == 0
    browser.key("t")
    assert browser.text("#status") == "Tokens are not known"
    assert "--stored opens no model" in browser.text(".notes")
    browser.key("j")
    assert column(browser, "sign") == ["+0.90", "", "−0.80", "−1.00"]  # a score of a neutral line that is not there


def test_samples_of_a_file_say_why_they_have_no_labels(
    browser: Chromium, small_run: Path, world: World, tmp_path: Path
) -> None:
    write_search(tmp_path / "beam.jsonl", world)
    problems, prm = small_run / "problems" / "label.jsonl", str(small_run / "prm" / "sign")
    build_page(tmp_path / "beam.jsonl", tmp_path / "beam.html", problems=problems, prms=[prm])
    browser.open(tmp_path / "beam.html")
    assert shown(browser).startswith("beam, 0: ✗")
    assert all(column(browser, "sign"))
    assert "Search labels: the file holds samples" in browser.text(".notes")


def test_a_soft_label_of_one_half_is_no_good_line(page: Chromium) -> None:
    page.js(
        """page.responses.forEach((r) => {
          if (r.label) Object.assign(r.label, {real_valued: true, labels: [0.5, 0, 0, -1]});
          Object.assign(r, {exact: null, scores: {sign: [1, 1, -0.5, 1]}});
        }); Object.assign(page.prms[0], {form: "signed", threshold: 0, span: 1})"""
    )
    page.key("j")
    assert column(page, "label") == ["+0.50", "·", "−0.00", "−1.00"]
    assert column(page, "sign") == ["+1.00", "+1.00", "−0.50", "+1.00"]
    assert page.js("mistakes(response(0), prm(0))") == [False, False, False, True]


def test_labels_by_joining_programs_have_no_probes(page: Chromium) -> None:
    page.js("page.responses.forEach((r) => { if (r.label) Object.assign(r.label, {strategy: 'splice', probes: []}); })")
    page.key("j")
    assert "no prefix of it was completed" in page.text("section[aria-label=Search]")


def test_more_tests_than_are_shown_are_counted(page: Chromium) -> None:
    page.key("j")
    assert "are shown" not in page.text(".pane")
    page.js("Object.assign(page.responses[state.responses[0]].verdict, {total: 900, first_failing: 77})")
    page.key("t")
    assert "The first 2 are shown; the first that fails is 78." in page.text(".pane")


def test_hostile_programs_stay_text(page: Chromium) -> None:
    page.key("]")
    assert "document.title='broken'" in page.text("table.code")
    assert page.js("document.title") == "small · psgpo inspect"
    assert page.js("document.scripts.length") == 2
    assert "document.title='broken'" in page.text("h2")


def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Chromium, page_file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    injected = "<script>document.title='broken'</script></body>"
    changed.write_text(page_file.read_text(encoding="utf-8").replace("</body>", injected), encoding="utf-8")
    browser.open(changed)
    assert browser.js("document.title") == "small · psgpo inspect"
    assert browser.js("document.querySelectorAll('td.line').length") > 0
