"""Cells executed in a Jupyter kernel of this Python, whatever kernels the user has installed."""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from notebooks.page import Cell, PageError

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS_FOR_A_CELL = 120
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Result:
    """What a cell printed, with the value of its last expression, and the pictures that it drew."""

    text: str
    pictures: tuple[bytes, ...]  #: PNG files


def run(cells: Sequence[Cell]) -> list[Result]:
    """Executes the cells one after the other in a new kernel and an empty temporary directory.

    Raises:
        PageError: for a cell that raises, that writes to stderr or that takes too long.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.code) for cell in cells])
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS_FOR_A_CELL,
            km=_kernel_manager(folder),
            extra_arguments=["--HistoryManager.enabled=False"],
            record_timing=False,
            shutdown_kernel="immediate",
            resources={"metadata": {"path": folder}},
        )
        with client.setup_kernel(env=_environment(folder), cleanup_kc=True):
            for index, cell in enumerate(cells):
                try:
                    client.execute_cell(notebook.cells[index], index)
                except CellExecutionError as error:
                    raise PageError(f"line {cell.line}: the cell fails\n{_COLOURS.sub('', str(error))}") from None
                except CellTimeoutError:
                    raise PageError(f"line {cell.line}: the cell takes more than {SECONDS_FOR_A_CELL} s") from None
    return [_result(cell, executed.outputs) for cell, executed in zip(cells, notebook.cells, strict=True)]


def _kernel_manager(folder: str) -> Any:
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    sockets = str(Path(folder, ".kernel"))  # files instead of ports, on which anybody could listen
    return AsyncKernelManager(kernel_name="python3", transport="ipc", ip=sockets, kernel_spec_manager=ThisPython())


def _environment(folder: str) -> dict[str, str]:
    """This convext; one thread, so that sums come out alike; no settings of the user for IPython and matplotlib."""
    settings = Path(folder, ".settings")
    settings.mkdir()
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(settings),
        "MPLCONFIGDIR": str(settings),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _result(cell: Cell, outputs: Sequence[Any]) -> Result:
    text = ""
    pictures: list[bytes] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            raise PageError(f"line {cell.line}: the cell writes to stderr\n{output.text}")
        if output.output_type == "stream":
            text += output.text
        elif "image/png" in output.data:
            pictures.append(base64.b64decode(output.data["image/png"]))
        elif "text/plain" in output.data:
            text += output.data["text/plain"] + "\n"
    lines = [line.rstrip() for line in text.splitlines()]
    return Result("\n".join(lines).strip("\n"), tuple(pictures))
