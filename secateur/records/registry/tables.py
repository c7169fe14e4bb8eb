"""Data sets in the registry, each once, however many versions were made from it.

tables/<first 12 characters of the digest>/index.parquet.dvc    ids, labels, splits and sources of all pictures
tables/<first 12 characters of the digest>/table.dvc            the table itself, if it is to be stored
"""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from secateur.dataset.shared import complete
from secateur.dataset.table import ImageTable, open_table
from secateur.records.registry.store import SUFFIX, Store

TABLES = "tables"
TABLE = "table"
INDEX_FILE = "index.parquet"


def table_path(digest: str) -> str:
    """The folder of a data set in the registry."""
    return f"{TABLES}/{digest[:12]}"


def put_table(store: Store, tree: Path, dataset_folder: Path, pictures: bool) -> dict[str, str]:
    """Store a data set, as far as that was not done before; the files for the registry.

    Args:
        store: Of the registry.
        tree: What `registry.opened` gave.
        dataset_folder: The table.
        pictures: Store the table itself too.
    """
    table = open_table(dataset_folder)
    folder = table_path(table.info.digest)
    files = {}
    if not (tree / folder / f"{INDEX_FILE}{SUFFIX}").exists():
        with tempfile.TemporaryDirectory(prefix="secateur-index-") as temporary:
            write_index(table, Path(temporary) / INDEX_FILE)
            files[f"{folder}/{INDEX_FILE}{SUFFIX}"] = store.put(Path(temporary) / INDEX_FILE, INDEX_FILE).text()
        files[f"{folder}/.gitignore"] = f"/{INDEX_FILE}\n/{TABLE}\n"
    if pictures and not (tree / folder / f"{TABLE}{SUFFIX}").exists():
        with complete(dataset_folder, table.info.digest, table.info.shards) as whole:
            files[f"{folder}/{TABLE}{SUFFIX}"] = store.put(whole, TABLE).text()
    return files


def write_index(table: ImageTable, path: Path) -> None:
    """Write all of a table but its pictures; the same table gives the same bytes."""
    columns = {
        "sample_id": pa.array(table.sample_id, pa.string()),
        "label": pa.array(table.label, pa.int32()),
        "split": pa.array(table.split, pa.string()),
        "source": pa.array([table.source(i) for i in range(len(table))], pa.string()),
    }
    pq.write_table(pa.table(columns), path)
