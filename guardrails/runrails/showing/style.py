"""
The one style sheet of everything shown as HTML.

Colours are those of the page around: JupyterLab's variables, then VS Code's, and where there is neither (a file in a
browser, Colab) what the reader's system prefers. Colour is never the only sign: every tone is also a word.

Tables ask for the room that they have themselves, not for the window's: a notebook's cell is narrower. What is around
them must not (`container`), since it would have no width in a box that takes its own from what is in it.
"""

from __future__ import annotations

__all__ = ["PAGE_STYLE", "STYLE"]

_LIGHT = """\
--rr-fg0: #1b1f24; --rr-soft0: #59616b; --rr-line0: #d5dae0; --rr-back0: #ffffff; --rr-fill0: #eef1f4;
--rr-ok0: #1a7f37; --rr-warn0: #b26a00; --rr-stop0: #c62828; --rr-mark0: #0b62c4;
--rr-s2: #8a4fd0; --rr-s3: #0f7d85;"""
_DARK = """\
--rr-fg0: #e4e8ec; --rr-soft0: #a3acb6; --rr-line0: #414a54; --rr-back0: #15191e; --rr-fill0: #262d35;
--rr-ok0: #4cc26a; --rr-warn0: #eaa53b; --rr-stop0: #ff7b72; --rr-mark0: #6cb0ff;
--rr-s2: #b992ff; --rr-s3: #4fc4cc;"""

STYLE = f"""\
.rr-out {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ .rr-out {{ {_DARK} }} }}
[theme=dark] .rr-out, [data-jp-theme-light=false] .rr-out, body.vscode-dark .rr-out {{ {_DARK} }}
[theme=light] .rr-out, [data-jp-theme-light=true] .rr-out, body.vscode-light .rr-out {{ {_LIGHT} }}
@media print {{ .rr-out {{ {_LIGHT} }} }}
.rr-out {{
--rr-fg: var(--jp-content-font-color1, var(--vscode-editor-foreground, var(--rr-fg0)));
--rr-soft: var(--jp-content-font-color2, var(--vscode-descriptionForeground, var(--rr-soft0)));
--rr-line: var(--jp-border-color2, var(--vscode-panel-border, var(--rr-line0)));
--rr-back: var(--jp-layout-color1, var(--vscode-editor-background, var(--rr-back0)));
--rr-fill: var(--jp-layout-color2, var(--vscode-editorWidget-background, var(--rr-fill0)));
--rr-ok: var(--vscode-testing-iconPassed, var(--rr-ok0));
--rr-warn: var(--vscode-editorWarning-foreground, var(--rr-warn0));
--rr-stop: var(--vscode-errorForeground, var(--rr-stop0));
--rr-mark: var(--vscode-textLink-foreground, var(--rr-mark0));
--rr-tone: var(--rr-mark);
color: var(--rr-fg); background: var(--rr-back);
font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
max-width: 62rem; overflow-wrap: break-word; }}
.rr-out * {{ box-sizing: border-box; }}
.rr-out p {{ margin: .35em 0; }}
.rr-out h2 {{ font-size: 1.1em; margin: 1.4em 0 .4em; line-height: 1.3; font-weight: 600; }}
.rr-out h3 {{ font-size: 1em; margin: 1em 0 .3em; line-height: 1.3; font-weight: 600; }}
.rr-out code {{ font: .93em ui-monospace, "SF Mono", Menlo, Consolas, monospace; background: none; color: inherit; }}
.rr-soft {{ color: var(--rr-soft); }}
.rr-ok {{ --rr-tone: var(--rr-ok); }}
.rr-warn {{ --rr-tone: var(--rr-warn); }}
.rr-stop {{ --rr-tone: var(--rr-stop); }}
.rr-plain {{ --rr-tone: var(--rr-mark); }}
.rr-panel {{ border: 1px solid var(--rr-line); border-left: 4px solid var(--rr-tone); border-radius: 4px;
padding: .55em .9em .65em; margin: .5em 0; break-inside: avoid; }}
.rr-title {{ font-weight: 600; margin: 0 0 .35em; }}
.rr-title::before {{ content: ""; display: inline-block; width: .6em; height: .6em; border-radius: 50%;
background: var(--rr-tone); margin-right: .5em; }}
.rr-scroll {{ overflow-x: auto; max-width: 100%; margin: .4em 0; container: rr / inline-size;
min-width: 16rem; }}
.rr-out .rr-table {{ border-collapse: collapse; border: 0; margin: 0; font-size: .95em; color: inherit;
table-layout: auto; min-width: 40%; }}
.rr-out .rr-table th, .rr-out .rr-table td {{ text-align: left; vertical-align: top; padding: .25em .7em; border: 0;
border-bottom: 1px solid var(--rr-line); max-width: 26rem; overflow-wrap: normal; white-space: normal; }}
.rr-out .rr-table th {{ color: var(--rr-soft); font-weight: 600; }}
.rr-out .rr-table .rr-long {{ overflow-wrap: anywhere; min-width: 12em; }}
.rr-out .rr-table .rr-num {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
.rr-out .rr-table tr {{ background: none; break-inside: avoid; }}
.rr-bar {{ margin: .5em 0; max-width: 34rem; break-inside: avoid; }}
.rr-bar-head {{ display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1em; }}
.rr-bar-text {{ font-variant-numeric: tabular-nums; }}
.rr-out .rr-track {{ display: block; width: 100%; height: 8px; margin: .2em 0 0; border-radius: 4px; }}
.rr-track-all {{ fill: var(--rr-fill); }}
.rr-track-part {{ fill: var(--rr-tone); }}
.rr-charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .8em 1.2em;
margin: .6em 0; align-items: start; }}
.rr-out .rr-figure {{ margin: 0; break-inside: avoid; min-width: 0; }}
.rr-out .rr-figure figcaption {{ display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1em;
margin: 0 0 .2em; }}
.rr-keys {{ display: flex; flex-wrap: wrap; gap: 0 .9em; color: var(--rr-soft); font-size: .9em; }}
.rr-key svg {{ display: inline-block; vertical-align: -2px; }}
.rr-out .rr-chart {{ display: block; width: 100%; max-width: 34rem; height: auto; }}
.rr-chart text {{ fill: var(--rr-soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }}
.rr-chart .rr-end {{ text-anchor: end; }}
.rr-chart .rr-middle {{ text-anchor: middle; }}
.rr-axis {{ stroke: var(--rr-line); stroke-width: 1; fill: none; }}
.rr-curve {{ stroke: var(--rr-mark); stroke-width: 2; fill: none; stroke-linejoin: round; }}
.rr-limit {{ stroke: var(--rr-stop); stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }}
.rr-chart .rr-limit-text {{ fill: var(--rr-stop); }}
.rr-input {{ fill: var(--rr-mark); }}
.rr-output {{ fill: var(--rr-s2); }}
.rr-ok-bar {{ fill: var(--rr-s3); }}
.rr-failed-bar {{ fill: var(--rr-warn); }}
.rr-blocked-bar {{ fill: var(--rr-stop); }}
.rr-mark-hint {{ fill: var(--rr-warn); stroke: var(--rr-back); stroke-width: 1; }}
.rr-mark-block {{ fill: var(--rr-s2); stroke: var(--rr-back); stroke-width: 1; }}
.rr-mark-stop {{ fill: var(--rr-stop); stroke: var(--rr-back); stroke-width: 1; }}
@container rr (max-width: 41rem) {{
.rr-wide, .rr-wide tbody, .rr-wide tr {{ display: block; }}
.rr-wide thead {{ display: none; }}
.rr-out .rr-wide tr {{ border-bottom: 1px solid var(--rr-line); padding: .3em 0; }}
.rr-out .rr-wide td, .rr-out .rr-wide .rr-num {{ display: inline-block; border: 0; padding: 0 .8em 0 0;
text-align: left; max-width: 100%; min-width: 0; }}
.rr-out .rr-wide td:empty {{ display: none; }}
.rr-wide td::before {{ content: attr(data-label) " "; color: var(--rr-soft); }} }}
@media print {{ .rr-out {{ -webkit-print-color-adjust: exact; print-color-adjust: exact; font-size: 11px; }}
.rr-scroll {{ overflow: visible; }} }}"""

PAGE_STYLE = f"""\
:root {{ color-scheme: light dark; }}
body {{ {_LIGHT} margin: 0; padding: 1.2rem; background: var(--rr-back0); }}
@media (prefers-color-scheme: dark) {{ body {{ {_DARK} }} }}
@media print {{ :root {{ color-scheme: light; }} body {{ {_LIGHT} padding: 0; }} }}
.rr-page {{ max-width: 62rem; margin: 0 auto; }}
.rr-page .rr-out {{ max-width: none; }}
.rr-page h1 {{ color: var(--rr-fg0); font: 600 1.35rem/1.3 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
margin: 0 0 .6em; overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{ body {{ padding: .7rem; }} }}"""
