"""Datasette's ASGI application."""

from datasette.app import Datasette

datasette = Datasette(["data.db"], settings={"max_csv_mb": 100, "num_sql_threads": 3})
app = datasette.app()
