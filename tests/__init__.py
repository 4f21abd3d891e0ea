"""The tests of headgate: harness.py and backends.py are their tools, the folders their kinds."""
