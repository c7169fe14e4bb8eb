"""What a data set is: the table, where it comes from, how pictures are read."""

from secateur.dataset.table import ImageTable, TableInfo, open_table

__all__ = ["ImageTable", "TableInfo", "open_table"]
