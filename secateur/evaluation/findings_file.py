"""The findings as files: one row for each judged sample."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secateur.evaluation.inspection import Inspection
from secateur.files import replacing

SCHEMA_VERSION = 1
FINDINGS_FILE, FINDINGS_TEXT_FILE = "findings.parquet", "findings.csv"
META_KEY = b"secateur"


def findings_table(inspection: Inspection) -> pa.Table:
    """One row for each judged sample, with what made them in the metadata.

    `diversity` is the mean cosine distance to the nearest pictures with the same given label: small for one that many
    others resemble.
    """
    table, findings = inspection.table, inspection.findings
    classes = np.array(table.info.classes, dtype=object)
    absent_N = inspection.group < 0
    columns = {
        "sample_id": pa.array(table.sample_id[inspection.row], pa.string()),
        "source": pa.array([table.source(int(row)) for row in inspection.row], pa.string()),
        "split": pa.array(inspection.split, pa.string()),
        "given": pa.array(classes[inspection.label], pa.string()),
        "suggested": pa.array(classes[findings.suggested_N], pa.string()),
        "probability_wrong": pa.array(inspection.probability_wrong),
        "probability_suggested": pa.array(inspection.probability_suggested),
        "margin": pa.array(findings.margin_N),
        **{f"log_probability_{name}": pa.array(value_N) for name, value_N in findings.signal.items()},
        "diversity": pa.array(findings.diversity_N),
        "duplicate_group": pa.array(inspection.group, pa.int32(), mask=absent_N),
        "leak": pa.array(inspection.leak),
        "audited": pa.array(inspection.audited == 1, mask=inspection.audited < 0),
    }
    made = pa.table(columns)
    return made.replace_schema_metadata({META_KEY: json.dumps(facts(inspection), sort_keys=True).encode()})


def facts(inspection: Inspection) -> dict[str, Any]:
    """What the findings rest on, and the figures of the whole data set; JSON values."""
    info, findings = inspection.table.info, inspection.findings
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": {"name": info.name, "digest": info.digest},
        "clip": {key: inspection.clip.get(key) for key in ("model", "pretrained", "weights")},
        "judged": len(inspection),
        "audited": findings.audited,
        "rate": {"value": findings.rate.value, "low": findings.rate.low, "high": findings.rate.high},
        "weight": findings.weight,
    }


def write_findings(inspection: Inspection, folder: str | Path) -> None:
    """Write `findings.parquet` and `findings.csv`; the same findings give the same bytes."""
    from pyarrow import csv

    made = findings_table(inspection)
    with replacing(Path(folder) / FINDINGS_FILE) as temporary:
        pq.write_table(made, temporary, compression="none")
    with replacing(Path(folder) / FINDINGS_TEXT_FILE) as temporary:
        csv.write_csv(made, temporary)
