"""What the documentation takes from the code when it is built: the command line, and links from types to pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import directives
from pygments.lexers.special import TextLexer
from rr_commands import pages_of_commands
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


class Commands(SphinxDirective):
    """Every command with its arguments, options and exit codes, as the command line itself tells them."""

    def run(self) -> list[nodes.Node]:
        """Write Markdown, and have it parsed as if it stood here."""
        return self.parse_text_to_nodes(pages_of_commands(), allow_section_headings=True)


class InlineSvg(SphinxDirective):
    """A picture of ours inside the page, so that it takes the page's colours, light or dark."""

    required_arguments = 1
    final_argument_whitespace = False
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012 -- docutils' way

    def run(self) -> list[nodes.Node]:
        """The file as it is."""
        path = Path(self.env.srcdir) / self.arguments[0]
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        return [nodes.raw("", f'<figure class="rr-figure">{text}</figure>', format="html")]


def link_type(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | nodes.TextElement | None:
    """
    Where a type in a signature is explained: by its last name, since public names live in one place and are made in
    another. Types that have no page (of the standard library, or private) stay plain text; what a person has written as
    a link and leads nowhere is still a warning.
    """
    if node.get("refdomain") != "py" or "refwarn" in node:
        return None
    last = node["reftarget"].rpartition(".")[2]
    domain = env.domains.python_domain
    found = [name for name in domain.objects if name.rpartition(".")[2] == last and name.startswith("runrails")]
    if len(found) != 1:
        return content
    entry = domain.objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entrance."""
    app.add_directive("runrails-commands", Commands)
    app.add_directive("inline-svg", InlineSvg)
    app.connect("missing-reference", link_type)
    app.add_lexer("ipython", TextLexer)  # magics are no Python
    return {"parallel_read_safe": True, "parallel_write_safe": True}
