"""One HTML file: template, style, script and data. Nothing in it is fetched, and no text in it can become markup.

The data stand in a script element of type application/json, in which only `</script>` or `<!--` could end or open
anything: so every `<` is written as \\u003c. The script builds the page with `textContent` alone. A content security
policy allows exactly this script, by its hash, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from psgpo.inspect_page.model import Page


def render_page(page: Page) -> str:
    """The file's text."""
    own, report = files("psgpo.inspect_page") / "templates", files("psgpo.report") / "templates"
    script = "\n".join((own / name).read_text(encoding="utf-8") for name in ("inspect.js", "response.js"))
    styles = [folder / name for folder, name in ((report, "tokens.css"), (own, "inspect.css"))]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((own / "inspect.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=page.title,
        data=Markup(embedded_json(page)),
        css=Markup("\n".join(style.read_text(encoding="utf-8") for style in styles)),
        script=Markup(script),
        script_hash=script_hash(script),
    )


def embedded_json(page: Page) -> str:
    """The data as JSON that may stand inside a script element."""
    text = json.dumps(page.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def script_hash(script: str) -> str:
    """What the content security policy calls a script; the element holds it between newlines."""
    return base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()


def write_page(page: Page, out: Path) -> None:
    """Write the file, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(render_page(page), encoding="utf-8")
    temporary.replace(out)
