"""``build debug``: makes an image of the state before the failed step, for a shell to inspect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as with_fields

from msgspec.structs import replace

from wherry.dockerfile import configs
from wherry.engine.builds.assembling import Assembler, ImageForm
from wherry.engine.builds.reports import Report
from wherry.images.store import ImageStore
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import ImageRunConfig
from wherry.solver.graph import Plan, RunOp, StagePlan, Vertex
from wherry.solver.solve import Result
from wherry.storage.leases import Lease


def failed_vertex(report: Report) -> Vertex | None:
    """The first step that failed."""
    return next((s.vertex for s in report.steps.values() if s.status == "failed" and s.vertex.parent), None)


def command_of(vertex: Vertex) -> str:
    """The step's command, in readable form."""
    return " ".join(vertex.op.args) if isinstance(vertex.op, RunOp) else vertex.text


def debug_image(
    vertex: Vertex,
    plan: Plan,
    results: Mapping[Vertex, Result],
    bases: Mapping[Digest, Image],
    assembler: Assembler,
    images: ImageStore,
    lease: Lease,
) -> str:
    """An image without a name: the state before ``vertex``, with its variables, user and directory.
    Blocks.

    Every vertex below must have a result.
    """
    assert vertex.parent is not None
    stage = next((one for one in plan.stages if one.name == vertex.stage), plan.target)
    config = ImageRunConfig(cmd=list(stage.config.config.shell or configs.DEFAULT_SHELL)[:1])
    if isinstance(vertex.op, RunOp):
        config = replace(config, env=list(vertex.op.env), user=vertex.op.user, working_dir=vertex.op.cwd)
    else:
        config = replace(config, env=stage.config.config.env)
    state: StagePlan = with_fields(
        stage, vertex=vertex.parent, config=replace(stage.config, config=config), history=(), base=None
    )
    assembled = assembler.assemble(state, results, bases, ImageForm(), lease)
    images.add(assembled.target)
    return assembled.target.digest
