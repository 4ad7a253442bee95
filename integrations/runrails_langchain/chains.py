"""Which chains inside a root chain are an agent of their own: what it repeats is not counted with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Part", "part_of"]

Part = Literal["graph_node", "inner_node", "sent_node", "executor"]
"""
`graph_node`: a node of a LangGraph graph that is no subgraph; its parent is the graph. `inner_node`: one of a graph
that runs inside a node of another, as a subgraph or as an agent in a tool. `sent_node`: a node started by a `Send`, as
map and reduce does for every item. `executor`: a classic AgentExecutor.
"""

_NODE_TAG = "graph:step:"
"""LangGraph tags a node's own chain with it, and no chain inside the node."""
_SENT = "__pregel_push"


def part_of(name: object, tags: Sequence[str] | None, metadata: Mapping[str, object] | None) -> Part | None:
    """What part of an agent a chain is, from what LangChain and LangGraph tell at its start."""
    if name == "AgentExecutor":
        return "executor"
    if not tags or metadata is None or not any(tag.startswith(_NODE_TAG) for tag in tags):
        return None
    path = metadata.get("langgraph_path")
    if isinstance(path, list | tuple) and len(cast("Sequence[object]", path)) > 1:
        # A task of the functional API is pushed as well, but with a path where a Send has its number.
        kind, number = cast("Sequence[object]", path)[:2]
        if kind == _SENT and isinstance(number, int):
            return "sent_node"
    namespace = metadata.get("langgraph_checkpoint_ns")
    return "graph_node" if isinstance(namespace, str) and "|" not in namespace else "inner_node"
