"""The audit: a file for a person to say which labels are wrong, and reading it back."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError, require_range
from secateur.evaluation.inspection import Inspection
from secateur.files import replacing

AUDIT_FILE = "audit.csv"
COLUMNS = ("sample_id", "source", "given", "suggested", "wrong")
ANSWERS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def draw(inspection: Inspection, count: int) -> npt.NDArray[np.int64]:
    """Positions of the samples to judge, those apart that were judged before; see `draw_audit` for their order."""
    from secateur.semantics.audit import draw_audit

    key_N, known_N = inspection.table.key[inspection.row], inspection.audited >= 0
    position_A = draw_audit(inspection.findings, min(len(key_N), count + int(known_N.sum())), key_N)
    return position_A[~known_N[position_A]][:count]


def write_audit(inspection: Inspection, position_A: npt.NDArray[np.int64], file: Path) -> None:
    """Write the file to fill in: one line for each sample, with an empty column `wrong`."""
    table = inspection.table
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        for i in position_A.tolist():
            row, suggested = int(inspection.row[i]), int(inspection.findings.suggested_N[i])
            names = (table.info.classes[int(inspection.label[i])], table.info.classes[suggested])
            writer.writerow([table.sample_id[row], table.source(row), *names, ""])


def check_audit(file: Path, count: int, size: int) -> None:
    """Check that an audit can be drawn, and that no judgements would be lost by writing its file.

    Args:
        file: Where it is written.
        count: How many samples are to be drawn.
        size: Of how many.

    Raises:
        InputError: Too few or too many, or the file is there with lines that are filled in.
    """
    from secateur.semantics.audit import STRATA

    require_range("audit", count, STRATA, size)
    if file.is_file() and any(entry["wrong"] for _, entry in read_lines(file)):
        raise InputError(f"audit must not replace a file that is filled in, got {str(file)!r}: move it or give --out")


def read_audit(file: str | Path, known: npt.NDArray[np.object_]) -> dict[str, bool]:
    """Read a judged file; lines that are not filled in are passed over.

    Args:
        file: With columns `sample_id` and `wrong`, of which the latter is yes, no, true, false, 1, 0 or empty.
        known: Ids of the judged samples.

    Returns:
        Whether the label is wrong, by id.

    Raises:
        InputError: No such file, a column that is missing, an id that is unknown or there twice, another answer, or
            none at all.
    """
    ids, found = set(known.tolist()), dict[str, bool]()
    for line, entry in read_lines(Path(file)):
        sample_id, answer = entry["sample_id"], entry["wrong"].lower()
        if sample_id not in ids:
            raise InputError(f"audited must name samples of this data set, got {sample_id!r} in line {line}")
        if answer and answer not in ANSWERS:
            raise InputError(f"audited must say yes, no, true, false, 1, 0 or nothing, got {answer!r} in line {line}")
        if sample_id in found:
            raise InputError(f"audited must name a sample once, got {sample_id!r} again in line {line}")
        if answer:
            found[sample_id] = ANSWERS[answer]
    if not found:
        raise InputError(f"audited must have a line that is filled in, got none in {str(file)!r}")
    return found


def read_lines(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number, and the columns `sample_id` and `wrong` of each line, also as spreadsheets write them."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            header = opened.readline()
            opened.seek(0)
            reader = csv.DictReader(opened, delimiter=max(",;\t", key=header.count))
            missing = [name for name in ("sample_id", "wrong") if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"audited must have a column {missing[0]!r}, got none in {str(file)!r}")
            for entry in reader:
                yield reader.line_num, {name: (entry[name] or "").strip() for name in ("sample_id", "wrong")}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"audited must be a CSV file, got {str(file)!r}: {error}") from error
